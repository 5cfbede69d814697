#pragma once

#include <string>
#include <vector>

#include "attention-worker/scheduler.h"
#include "observability/metrics.h"

namespace bottega {

// What an attention worker does under vLLM's names, so that dashboards and autoscalers made for it
// work: attention workers only, or sums over a cluster would count twice. Times begin when the
// sequence arrives here; the gateway's queue is not in them. Loop thread only.
class VllmMetrics {
 public:
  VllmMetrics(prometheus::Registry& registry, const std::string& model_name);

  // Once, when the pool has its size.
  void Pool(int block_tokens, int blocks);
  void Step(int64_t tokens) { iteration_tokens_.Observe(static_cast<double>(tokens)); }
  // Before sequence.last_token is set to `now`.
  void Token(const Sequence& sequence, Time now, Finish finish);
  // The last of a request's choices here has finished.
  void LastChoice(uint32_t longest) { longest_choice_.Observe(longest); }
  void Publish(const Scheduler& scheduler, int running, double kv_usage);

 private:
  void Publish(const SpeculationStats& stats);
  void Finished(const Sequence& sequence, Time now, Finish finish);

  prometheus::Registry& registry_;
  const metrics::Labels labels_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& kv_usage_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Counter& cache_queries_;
  prometheus::Counter& cache_hits_;
  prometheus::Counter& drafts_;
  prometheus::Counter& draft_tokens_;
  prometheus::Counter& accepted_tokens_;
  std::vector<prometheus::Counter*> accepted_at_;  // [kSequenceDraftTokensMax]
  prometheus::Counter& stopped_;
  prometheus::Counter& cut_;
  metrics::LoopSeries iteration_tokens_;
  metrics::LoopSeries first_token_;
  metrics::LoopSeries inter_token_;
  metrics::LoopSeries per_output_token_;
  metrics::LoopSeries e2e_;
  metrics::LoopSeries queue_;
  metrics::LoopSeries prefill_;
  metrics::LoopSeries decode_;
  metrics::LoopSeries inference_;
  metrics::LoopSeries prompt_length_;
  metrics::LoopSeries generation_length_;
  metrics::LoopSeries max_generation_;
  metrics::LoopSeries longest_choice_;
  metrics::LoopSeries choices_;
};

}  // namespace bottega
