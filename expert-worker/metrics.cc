#include "expert-worker/metrics.h"

#include <chrono>

namespace bottega {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;

// A counter follows a number that only grows.
void RaiseTo(prometheus::Counter& counter, double value) {
  if (const double difference = value - counter.Value(); difference > 0) {
    counter.Increment(difference);
  }
}

constexpr char kDropped[] = "bottega_exchange_dropped_frames_total";

}  // namespace

ExpertMetrics::ExpertMetrics(prometheus::Registry& r)
    : rows_decode_(
          AddCounter(r, "bottega_expert_rows_total", "Rows computed", {{"phase", "decode"}})),
      rows_prefill_(
          AddCounter(r, "bottega_expert_rows_total", "Rows computed", {{"phase", "prefill"}})),
      busy_seconds_(AddCounter(r, "bottega_expert_busy_seconds_total", "Time spent computing")),
      nacks_(AddCounter(r, "bottega_expert_nacks_total", "Frames refused")),
      digest_failures_(AddCounter(r, "bottega_expert_digest_failures_total",
                                  "Experts that could not be loaded")),
      queue_rows_(AddGauge(r, "bottega_expert_queue_rows", "Rows here, waiting or in work")),
      experts_ready_(AddGauge(r, "bottega_expert_experts", "Experts", {{"state", "ready"}})),
      experts_loading_(AddGauge(r, "bottega_expert_experts", "Experts", {{"state", "loading"}})),
      dropped_malformed_(AddCounter(r, kDropped, "Frames not used", {{"reason", "malformed"}})),
      dropped_incarnation_(AddCounter(r, kDropped, "Frames not used", {{"reason", "incarnation"}})),
      dropped_stranger_(AddCounter(r, kDropped, "Frames not used", {{"reason", "stranger"}})),
      dropped_corrupt_(AddCounter(r, kDropped, "Frames not used", {{"reason", "corrupt"}})) {}

void ExpertMetrics::Update(ExpertEngine& engine, size_t missing) {
  const ExpertStats& s = engine.stats();
  RaiseTo(rows_decode_, static_cast<double>(s.rows_decode));
  RaiseTo(rows_prefill_, static_cast<double>(s.rows_prefill));
  RaiseTo(busy_seconds_, std::chrono::duration<double>(s.busy).count());
  RaiseTo(nacks_,
          static_cast<double>(s.nacks_busy + s.nacks_not_held + s.nacks_corrupt + s.nacks_expired));
  RaiseTo(digest_failures_, static_cast<double>(s.load_failures));
  queue_rows_.Set(static_cast<double>(engine.queued_rows()));
  experts_ready_.Set(static_cast<double>(engine.held().size()));
  experts_loading_.Set(static_cast<double>(missing));
  RaiseTo(dropped_malformed_, static_cast<double>(s.dropped_malformed));
  RaiseTo(dropped_incarnation_, static_cast<double>(s.dropped_incarnation));
  RaiseTo(dropped_stranger_, static_cast<double>(s.dropped_stranger + s.dropped_unpaired));
  RaiseTo(dropped_corrupt_, static_cast<double>(s.dropped_corrupt));
}

}  // namespace bottega
