#pragma once

#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <string>

#include "core/transport/transport.h"

namespace bottega {

// Copy what a transport counts into bottega_exchange_bytes_total and bottega_exchange_endpoints,
// for a scrape hook. An attention worker knows more of its endpoints than that (AttentionMetrics).
void CopyTransportBytes(const Transport& transport, prometheus::Registry& registry);
void CopyTransportEndpoints(const Transport& transport, prometheus::Registry& registry);

// How many endpoints are up, by kind; for heartbeats.
std::map<std::string, uint32_t> EndpointsUp(const Transport& transport);

}  // namespace bottega
