#pragma once

#include <string>

#include "expert-worker/engine.h"
#include "observability/metrics.h"

namespace bottega {

// bottega_expert_* and this end's bottega_exchange_*, named in observability/metrics.md.
class ExpertMetrics {
 public:
  ExpertMetrics(prometheus::Registry& registry, const std::string& transport);

  // Brings the counters up to the engine's.
  void Update(ExpertEngine& engine, size_t missing);

 private:
  prometheus::Counter& rows_decode_;
  prometheus::Counter& rows_prefill_;
  prometheus::Counter& busy_seconds_;
  prometheus::Counter& nacks_;
  prometheus::Counter& digest_failures_;
  prometheus::Gauge& queue_rows_;
  prometheus::Gauge& experts_ready_;
  prometheus::Gauge& experts_loading_;
  prometheus::Counter& bytes_sent_;
  prometheus::Counter& bytes_received_;
  prometheus::Counter& dropped_malformed_;
  prometheus::Counter& dropped_incarnation_;
  prometheus::Counter& dropped_stranger_;
  prometheus::Counter& dropped_corrupt_;
  prometheus::Gauge& endpoints_;
};

}  // namespace bottega
