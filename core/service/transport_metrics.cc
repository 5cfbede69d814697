#include "core/service/transport_metrics.h"

#include <utility>

#include "observability/metrics.h"

namespace bottega {

void CopyTransportBytes(const Transport& transport, prometheus::Registry& registry) {
  for (const TransportKindStats& kind : transport.stats()) {
    const std::pair<const char*, uint64_t> bytes[] = {{"sent", kind.bytes_sent},
                                                      {"received", kind.bytes_received}};
    for (const auto& [direction, value] : bytes) {
      prometheus::Counter& counter =
          metrics::AddCounter(registry, "bottega_exchange_bytes_total", "Bytes of frames",
                              {{"transport", kind.kind}, {"direction", direction}});
      metrics::RaiseTo(counter, static_cast<double>(value));
    }
  }
}

void CopyTransportEndpoints(const Transport& transport, prometheus::Registry& registry) {
  for (const TransportKindStats& kind : transport.stats()) {
    const std::pair<const char*, size_t> states[] = {{"connecting", kind.connecting},
                                                     {"up", kind.up}};
    for (const auto& [state, value] : states) {
      metrics::AddGauge(registry, "bottega_exchange_endpoints", "Endpoints of the data plane",
                        {{"transport", kind.kind}, {"state", state}})
          .Set(static_cast<double>(value));
    }
  }
}

std::map<std::string, uint32_t> EndpointsUp(const Transport& transport) {
  std::map<std::string, uint32_t> up;
  for (const TransportKindStats& kind : transport.stats()) {
    up[kind.kind] = static_cast<uint32_t>(kind.up);
  }
  return up;
}

}  // namespace bottega
