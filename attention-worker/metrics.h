#pragma once

#include <string_view>
#include <vector>

#include "attention-worker/scheduler.h"
#include "core/base/time.h"
#include "core/exchange/dispatch.h"
#include "observability/metrics.h"

namespace bottega {

// bottega_attention_* and this end's bottega_exchange_*, named in observability/metrics.md.
class AttentionMetrics {
 public:
  AttentionMetrics(prometheus::Registry& registry, const std::string& model_name);

  // After each step: what it computed and how long it took.
  void Step(const StepBatch& batch, const std::vector<Scheduler::Share>& shares, Duration took);
  void Pool(const Scheduler& scheduler);
  void Abort(std::string_view reason);
  void ExchangeWait(Duration waited);
  // Brings the exchange's counters up to `stats`.
  void Exchange(const DispatcherStats& stats, size_t credits_in_use);

 private:
  prometheus::Registry& registry_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& kv_usage_;
  prometheus::Gauge& kv_free_;
  prometheus::Gauge& kv_used_;
  prometheus::Counter& prompt_tokens_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& preemptions_;
  prometheus::Histogram& decode_seconds_;
  prometheus::Histogram& prefill_seconds_;
  prometheus::Histogram& exchange_wait_seconds_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& batch_requests_;
};

}  // namespace bottega
