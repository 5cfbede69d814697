#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "attention-worker/scheduler.h"
#include "attention-worker/vllm_metrics.h"
#include "core/base/loop.h"
#include "core/exchange/dispatch.h"
#include "observability/metrics.h"

namespace bottega {

// The stages of a step, in its order; gate to combine once a layer.
enum class StepStage { kEmbed, kAttend, kGate, kExchangeWait, kCombine, kLmHead, kSample };
inline constexpr int kStepStages = 7;

// bottega_attention_* and this end's bottega_exchange_*, named in observability/metrics.md. The
// loop counts in its own memory; Publish, the hook of a scrape, copies. Loop thread only.
class AttentionMetrics {
 public:
  // `peer_name` names an expert worker; given for --moe-metrics=detailed only.
  using PeerName = std::function<std::string(MemberId)>;

  AttentionMetrics(prometheus::Registry& registry, const std::string& model_name);

  void Stage(StepStage stage, Duration took) {
    stages_[static_cast<int>(stage)].Observe(Seconds(took));
  }
  // After each step: what it computed and how long it took.
  void Step(FramePhase phase, const Scheduler::Step& step, Duration took);
  // After each slice of prefill that ended for a decode step, and the budget of the next.
  void Slice(Duration took, Duration budget);
  // A token of a sequence is out; before sequence.last_token is set to `now`.
  void Token(const Sequence& sequence, Time now, Finish finish) {
    generation_tokens_.Increment();
    vllm_.Token(sequence, now, finish);
  }
  // Of a sequence's life: submitted → first step → first token → last token.
  void Queued(Duration waited) { queue_seconds_.Observe(Seconds(waited)); }
  void Prefilled(Duration took) { prefill_seconds_.Observe(Seconds(took)); }
  void Decoded(Duration took) { decode_seconds_.Observe(Seconds(took)); }
  void Abort(std::string_view reason);
  VllmMetrics& vllm() { return vllm_; }

  // For the log: what was done in the `span` since the last call; "" if nothing.
  std::string BusyLine(const Scheduler& scheduler, Duration span);

  void Publish(const Scheduler& scheduler);
  void Publish(const Dispatcher& dispatcher, const PeerName& peer_name);

 private:
  void PublishStats(const DispatcherStats& stats);
  void PublishPeers(const Dispatcher& dispatcher, const PeerName& peer_name);

  prometheus::Registry& registry_;
  prometheus::Gauge& running_;
  prometheus::Gauge& waiting_;
  prometheus::Gauge& kv_usage_;
  prometheus::Gauge& kv_free_;
  prometheus::Gauge& kv_used_;
  prometheus::Gauge& kv_cached_;
  prometheus::Counter& prompt_computed_;
  prometheus::Counter& prompt_replayed_;
  prometheus::Counter& prompt_cached_;
  prometheus::Counter& cache_queries_;
  prometheus::Counter& cache_hits_;
  prometheus::Counter& generation_tokens_;
  prometheus::Counter& preemptions_;
  std::vector<metrics::LoopSeries> stages_;  // [kStepStages]
  metrics::LoopSeries decode_step_seconds_;
  metrics::LoopSeries prefill_step_seconds_;
  metrics::LoopSeries prefill_slice_seconds_;
  prometheus::Gauge& step_budget_;
  metrics::LoopSeries batch_tokens_;
  metrics::LoopSeries batch_requests_;
  metrics::LoopSeries queue_seconds_;
  metrics::LoopSeries prefill_seconds_;
  metrics::LoopSeries decode_seconds_;
  std::map<std::string, metrics::HistogramSeries> round_trip_;  // by transport
  metrics::HistogramSeries wait_last_peer_;
  std::map<std::string, metrics::HistogramSeries> peer_round_trip_;  // by name
  VllmMetrics vllm_;
  double told_in_ = 0, told_out_ = 0, told_queries_ = 0, told_hits_ = 0;  // tokens
};

// Times the stages of a step, one after the other, without its pauses.
class StageClock {
 public:
  StageClock(const Loop& loop, AttentionMetrics& metrics) : loop_(loop), metrics_(metrics) {}
  void Begin() { last_ = loop_.Now(); }
  void Skip(Duration pause) { last_ += pause; }
  void Done(StepStage stage) {
    const Time now = loop_.Now();
    metrics_.Stage(stage, now - last_);
    last_ = now;
  }

 private:
  const Loop& loop_;
  AttentionMetrics& metrics_;
  Time last_{};
};

}  // namespace bottega
