#pragma once

#include "expert-worker/engine.h"
#include "observability/metrics.h"

namespace bottega {

// bottega_expert_* and what this end counts of bottega_exchange_*, named in
// observability/metrics.md.
class ExpertMetrics {
 public:
  explicit ExpertMetrics(prometheus::Registry& registry);

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
  prometheus::Counter& dropped_malformed_;
  prometheus::Counter& dropped_incarnation_;
  prometheus::Counter& dropped_stranger_;
  prometheus::Counter& dropped_corrupt_;
};

}  // namespace bottega
