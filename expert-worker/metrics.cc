#include "expert-worker/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/base/reason.h"

namespace bottega {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;
using metrics::AddHistogram;
using metrics::Labels;
using metrics::RaiseTo;

constexpr char kRows[] = "bottega_expert_rows_total";
constexpr char kDropped[] = "bottega_exchange_dropped_frames_total";
constexpr char kSteps[] = "bottega_expert_step_seconds";

}  // namespace

absl::Status ExpertMetrics::CheckDetailed(const ExchangeShape& shape) {
  const size_t series = size_t{shape.layers} * shape.experts;
  if (series <= metrics::kExpertSeriesMax) return absl::OkStatus();
  return MakeError(
      Reason::kInvalidValue,
      fmt::format("--moe-metrics=detailed: {} layers of {} experts would be {} series; "
                  "a process shows at most {}",
                  shape.layers, shape.experts, series, metrics::kExpertSeriesMax));
}

ExpertMetrics::ExpertMetrics(prometheus::Registry& r, const ExchangeShape& shape, bool detailed)
    : busy_seconds_(AddCounter(r, "bottega_expert_busy_seconds_total", "Time spent computing")),
      nacks_(AddCounter(r, "bottega_expert_nacks_total", "Frames refused")),
      dropped_stranger_(AddCounter(r, kDropped, "Frames not used", {{"reason", "stranger"}})),
      queue_rows_(AddGauge(r, "bottega_expert_queue_rows", "Rows here, waiting or in work")),
      experts_ready_(AddGauge(r, "bottega_expert_experts", "Experts", {{"state", "ready"}})),
      experts_loading_(AddGauge(r, "bottega_expert_experts", "Experts", {{"state", "loading"}})),
      active_experts_(AddGauge(r, "bottega_expert_active_experts_ratio",
                               "Share of the experts held that had rows since the last scrape")) {
  const auto count = [&](const char* name, const char* help, const Labels& labels,
                         uint64_t ExpertStats::*value) {
    counters_.push_back({AddCounter(r, name, help, labels), value});
  };
  count(kRows, "Rows computed", {{"phase", "decode"}}, &ExpertStats::rows_decode);
  count(kRows, "Rows computed", {{"phase", "prefill"}}, &ExpertStats::rows_prefill);
  count("bottega_expert_digest_failures_total", "Experts that could not be loaded", {},
        &ExpertStats::load_failures);
  count(kDropped, "Frames not used", {{"reason", "malformed"}}, &ExpertStats::dropped_malformed);
  count(kDropped, "Frames not used", {{"reason", "incarnation"}},
        &ExpertStats::dropped_incarnation);
  count(kDropped, "Frames not used", {{"reason", "corrupt"}}, &ExpertStats::dropped_corrupt);
  count(kDropped, "Frames not used", {{"reason", "duplicate"}}, &ExpertStats::dropped_duplicate);

  const auto observe = [&](const char* name, const char* help, const Labels& labels,
                           const metrics::LoopHistogram ExpertStats::*value) {
    histograms_.push_back({metrics::HistogramSeries(AddHistogram(
                               r, name, help, (ExpertStats{}.*value).bounds(), labels)),
                           value});
  };
  const char* step_help = "One stage of an item of work";
  observe(kSteps, step_help, {{"stage", "gather"}}, &ExpertStats::gather);
  observe(kSteps, step_help, {{"stage", "gate_up"}}, &ExpertStats::gate_up);
  observe(kSteps, step_help, {{"stage", "down"}}, &ExpertStats::down);
  observe(kSteps, step_help, {{"stage", "reply"}}, &ExpertStats::reply);
  observe("bottega_expert_queue_seconds", "A frame's arrival to its work", {}, &ExpertStats::queue);
  observe("bottega_expert_rows_per_step", "Rows of one piece of merged work", {},
          &ExpertStats::rows);
  observe("bottega_expert_imbalance_ratio",
          "Most over mean rows of the experts in one piece of merged work", {},
          &ExpertStats::imbalance);
  observe("bottega_expert_load_seconds", "An assignment to all its experts being ready", {},
          &ExpertStats::load);

  if (!detailed || !CheckDetailed(shape).ok()) return;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (uint32_t expert = 0; expert < shape.experts; ++expert) {
      layer_rows_.push_back(
          &AddCounter(r, "bottega_expert_layer_rows_total", "Rows computed, by layer and expert",
                      {{"layer", std::to_string(layer)}, {"expert", std::to_string(expert)}}));
    }
  }
}

void ExpertMetrics::Update(ExpertEngine& engine, size_t missing) {
  const ExpertStats& s = engine.stats();
  for (const CounterOf& counter : counters_) {
    RaiseTo(counter.series, static_cast<double>(s.*counter.value));
  }
  for (HistogramOf& histogram : histograms_) histogram.series.RaiseTo(s.*histogram.value);
  RaiseTo(busy_seconds_, Seconds(s.busy));
  RaiseTo(nacks_,
          static_cast<double>(s.nacks_busy + s.nacks_not_held + s.nacks_corrupt + s.nacks_expired));
  RaiseTo(dropped_stranger_, static_cast<double>(s.dropped_stranger + s.dropped_unpaired));
  const double held = static_cast<double>(engine.held().size());
  queue_rows_.Set(static_cast<double>(engine.queued_rows()));
  experts_ready_.Set(held);
  experts_loading_.Set(static_cast<double>(missing));
  UpdateActive(engine.expert_rows(), engine.held().size());
}

void ExpertMetrics::UpdateActive(const std::vector<uint64_t>& expert_rows, size_t held) {
  last_rows_.resize(expert_rows.size());
  size_t active = 0;
  for (size_t i = 0; i < expert_rows.size(); ++i) active += expert_rows[i] > last_rows_[i];
  active_experts_.Set(static_cast<double>(active) / static_cast<double>(std::max<size_t>(1, held)));
  last_rows_ = expert_rows;
  for (size_t i = 0; i < layer_rows_.size(); ++i) {
    RaiseTo(*layer_rows_[i], static_cast<double>(expert_rows[i]));
  }
}

}  // namespace bottega
