#pragma once

#include <string>
#include <vector>

#include "expert-worker/engine.h"
#include "observability/metrics.h"

namespace bottega {

// bottega_expert_* and what this end counts of bottega_exchange_*, named in
// observability/metrics.md. Loop thread.
class ExpertMetrics {
 public:
  // `detailed`: also rows by layer and expert; only for a model that CheckDetailed accepts.
  ExpertMetrics(prometheus::Registry& registry, const ExchangeShape& shape, bool detailed);

  // Refuses a model with more (layer, expert) than a process may have series.
  static absl::Status CheckDetailed(const ExchangeShape& shape);

  // Brings the series up to the engine's counts; the hook of a scrape.
  void Update(ExpertEngine& engine, size_t missing);

 private:
  struct CounterOf {
    prometheus::Counter& series;
    uint64_t ExpertStats::*value;
  };
  struct HistogramOf {
    metrics::HistogramSeries series;
    const metrics::LoopHistogram ExpertStats::*value;
  };
  void UpdateActive(const std::vector<uint64_t>& expert_rows, size_t held);

  std::vector<CounterOf> counters_;
  std::vector<HistogramOf> histograms_;
  prometheus::Counter& busy_seconds_;
  prometheus::Counter& nacks_;
  prometheus::Counter& dropped_stranger_;
  prometheus::Gauge& queue_rows_;
  prometheus::Gauge& experts_ready_;
  prometheus::Gauge& experts_loading_;
  prometheus::Gauge& active_experts_;
  std::vector<prometheus::Counter*> layer_rows_;  // [layers * experts], or empty
  std::vector<uint64_t> last_rows_;               // expert_rows at the last scrape
};

}  // namespace bottega
