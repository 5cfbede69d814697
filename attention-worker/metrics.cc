#include "attention-worker/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace bottega {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;
using metrics::AddHistogram;
using metrics::RaiseTo;

constexpr const char* kStageNames[kStepStages] = {"embed",   "attend",  "gate",  "exchange_wait",
                                                  "combine", "lm_head", "sample"};
constexpr const char* kPeerStates[] = {"connecting", "up", "suspect", "quarantined", "down"};

// How sequences end without their last token; the rest of core/base/reason.h is "other".
constexpr std::string_view kAbortReasons[] = {
    "cancelled",      "deadline_exceeded", "experts_unavailable",
    "internal_error", "draining",          "request_quarantined",
    "other"};

std::string_view AbortLabel(std::string_view reason) {
  return std::ranges::find(kAbortReasons, reason) != std::end(kAbortReasons) ? reason : "other";
}

}  // namespace

AttentionMetrics::AttentionMetrics(prometheus::Registry& r, const std::string& model)
    : registry_(r),
      running_(AddGauge(r, "bottega_attention_requests_running", "Sequences that decode",
                        {{"model_name", model}})),
      waiting_(AddGauge(r, "bottega_attention_requests_waiting",
                        "Sequences whose prompt is not done", {{"model_name", model}})),
      kv_usage_(AddGauge(r, "bottega_attention_kv_usage_ratio", "Used share of the KV pool")),
      kv_free_(AddGauge(r, "bottega_attention_kv_blocks", "KV blocks", {{"state", "free"}})),
      kv_used_(AddGauge(r, "bottega_attention_kv_blocks", "KV blocks", {{"state", "used"}})),
      kv_cached_(AddGauge(r, "bottega_attention_kv_blocks", "KV blocks", {{"state", "cached"}})),
      prompt_computed_(AddCounter(r, "bottega_attention_prompt_tokens_total", "Prompt tokens",
                                  {{"model_name", model}, {"source", "computed"}})),
      prompt_replayed_(AddCounter(r, "bottega_attention_prompt_tokens_total", "Prompt tokens",
                                  {{"model_name", model}, {"source", "replayed"}})),
      prompt_cached_(AddCounter(r, "bottega_attention_prompt_tokens_total", "Prompt tokens",
                                {{"model_name", model}, {"source", "cached"}})),
      cache_queries_(AddCounter(r, "bottega_attention_prefix_cache_query_tokens_total",
                                "Tokens looked up in the prefix cache")),
      cache_hits_(AddCounter(r, "bottega_attention_prefix_cache_hit_tokens_total",
                             "Tokens found in the prefix cache")),
      generation_tokens_(AddCounter(r, "bottega_attention_generation_tokens_total",
                                    "Generated tokens", {{"model_name", model}})),
      preemptions_(AddCounter(r, "bottega_attention_preemptions_total",
                              "Sequences that gave up their KV blocks")),
      decode_step_seconds_(r, "bottega_attention_step_seconds", "Duration of a step",
                           metrics::InterTokenBuckets(), {{"phase", "decode"}}),
      prefill_step_seconds_(r, "bottega_attention_step_seconds", "Duration of a step",
                            metrics::InterTokenBuckets(), {{"phase", "prefill"}}),
      prefill_slice_seconds_(r, "bottega_attention_prefill_slice_seconds",
                             "Prefill between two decode steps", metrics::InterTokenBuckets()),
      step_budget_(AddGauge(r, "bottega_attention_step_budget_seconds",
                            "How long a slice of prefill may be")),
      batch_tokens_(r, "bottega_attention_batch_tokens", "Tokens in a step", metrics::RowBuckets()),
      batch_requests_(r, "bottega_attention_batch_requests", "Sequences in a step",
                      metrics::RowBuckets()),
      queue_seconds_(r, "bottega_attention_queue_seconds", "A sequence's arrival to its first step",
                     metrics::EndToEndBuckets()),
      prefill_seconds_(r, "bottega_attention_prefill_seconds",
                       "A sequence's first step to its first token", metrics::EndToEndBuckets()),
      decode_seconds_(r, "bottega_attention_decode_seconds", "A sequence's first token to its last",
                      metrics::EndToEndBuckets()),
      wait_last_peer_(AddHistogram(r, "bottega_exchange_wait_last_peer_seconds",
                                   "A dispatch's first reply to its last", metrics::FineBuckets())),
      vllm_(r, model) {
  for (const char* stage : kStageNames) {
    stages_.emplace_back(r, "bottega_attention_stage_seconds", "Duration of a stage of a step",
                         metrics::FineBuckets(), metrics::Labels{{"stage", stage}});
  }
  for (std::string_view reason : kAbortReasons) {
    AddCounter(r, "bottega_attention_aborts_total", "Sequences that ended early",
               {{"reason", std::string(reason)}});
  }
}

void AttentionMetrics::Step(FramePhase phase, const Scheduler::Step& step, Duration took) {
  const bool decode = phase == FramePhase::kDecode;
  (decode ? decode_step_seconds_ : prefill_step_seconds_).Observe(Seconds(took));
  batch_tokens_.Observe(static_cast<double>(step.batch.tokens()));
  batch_requests_.Observe(static_cast<double>(step.shares.size()));
  vllm_.Step(step.batch.tokens());
  for (const Scheduler::Share& share : step.shares) {
    // Nothing of the step is committed yet: a prompt that was cached but for a token still shows.
    if (decode && !share.sequence->just_hit()) continue;
    (share.sequence->replays ? prompt_replayed_ : prompt_computed_).Increment(share.tokens);
  }
}

void AttentionMetrics::Slice(Duration took, Duration budget) {
  prefill_slice_seconds_.Observe(Seconds(took));
  step_budget_.Set(Seconds(budget));
}

void AttentionMetrics::Abort(std::string_view reason) {
  AddCounter(registry_, "bottega_attention_aborts_total", "Sequences that ended early",
             {{"reason", std::string(AbortLabel(reason))}})
      .Increment();
}

std::string AttentionMetrics::BusyLine(const Scheduler& scheduler, Duration span) {
  const double prompts = prompt_computed_.Value() + prompt_replayed_.Value();
  const double in = prompts - std::exchange(told_in_, prompts);
  const double out =
      generation_tokens_.Value() - std::exchange(told_out_, generation_tokens_.Value());
  if (in + out == 0 && scheduler.empty()) return "";
  Publish(scheduler);
  const double queries = cache_queries_.Value();
  const double asked = queries - std::exchange(told_queries_, queries);
  const double hits = cache_hits_.Value();
  const double found = hits - std::exchange(told_hits_, hits);
  return fmt::format(
      "{:.1f} tokens/s in, {:.1f} out; {} running, {} waiting; KV {:.0f} %, prefix hits {:.0f} %",
      in / Seconds(span), out / Seconds(span), running_.Value(), waiting_.Value(),
      100 * kv_usage_.Value(), 100 * found / std::max(1.0, asked));
}

void AttentionMetrics::Publish(const Scheduler& scheduler) {
  int decoding = 0;
  for (const auto& [rank, sequence] : scheduler.sequences()) decoding += sequence->decoding();
  running_.Set(decoding);
  waiting_.Set(static_cast<double>(scheduler.sequences().size()) - decoding);
  const int used = scheduler.total_blocks() - scheduler.free_blocks();
  kv_free_.Set(scheduler.free_blocks() - scheduler.cached_blocks());
  kv_cached_.Set(scheduler.cached_blocks());
  kv_used_.Set(used);
  kv_usage_.Set(static_cast<double>(used) / std::max(1, scheduler.total_blocks()));
  RaiseTo(preemptions_, static_cast<double>(scheduler.preemptions()));
  RaiseTo(cache_queries_, static_cast<double>(scheduler.cache_query_tokens()));
  RaiseTo(cache_hits_, static_cast<double>(scheduler.cache_hit_tokens()));
  RaiseTo(prompt_cached_, static_cast<double>(scheduler.cache_hit_tokens()));
  vllm_.Publish(scheduler, decoding, kv_usage_.Value());
  for (metrics::LoopSeries& stage : stages_) stage.Publish();
  for (metrics::LoopSeries* series :
       {&decode_step_seconds_, &prefill_step_seconds_, &prefill_slice_seconds_, &batch_tokens_,
        &batch_requests_, &queue_seconds_, &prefill_seconds_, &decode_seconds_}) {
    series->Publish();
  }
}

void AttentionMetrics::Publish(const Dispatcher& dispatcher, const PeerName& peer_name) {
  PublishStats(dispatcher.stats());
  PublishPeers(dispatcher, peer_name);
  AddGauge(registry_, "bottega_exchange_credits_in_use", "Rows in flight")
      .Set(static_cast<double>(dispatcher.credits_in_use()));
}

void AttentionMetrics::PublishPeers(const Dispatcher& dispatcher, const PeerName& peer_name) {
  const std::vector<PeerView> peers = dispatcher.PeerViews();
  for (const auto& [kind, of] : dispatcher.stats().kinds) {
    for (size_t state = 0; state < std::size(kPeerStates); ++state) {
      const auto count = std::ranges::count_if(peers, [&](const PeerView& peer) {
        return peer.transport == kind && peer.state == static_cast<PeerView::State>(state);
      });
      AddGauge(registry_, "bottega_exchange_endpoints", "Endpoints of the data plane",
               {{"transport", kind}, {"state", kPeerStates[state]}})
          .Set(static_cast<double>(count));
    }
  }
  if (!peer_name) return;
  for (const PeerView& peer : peers) {
    const std::string name = peer_name(peer.member);
    auto series = peer_round_trip_.find(name);
    if (series == peer_round_trip_.end()) {
      if (peer_round_trip_.size() == metrics::kPeersShownMax) continue;
      prometheus::Histogram& added =
          AddHistogram(registry_, "bottega_exchange_peer_round_trip_seconds",
                       "A frame's posting to its reply, by expert worker", metrics::FineBuckets(),
                       {{"peer", name}});
      series = peer_round_trip_.emplace(name, added).first;
    }
    series->second.RaiseTo(*peer.round_trip);
  }
}

void AttentionMetrics::PublishStats(const DispatcherStats& s) {
  const auto raise = [this](const char* name, const char* help, const metrics::Labels& labels,
                            uint64_t value) {
    RaiseTo(AddCounter(registry_, name, help, labels), static_cast<double>(value));
  };
  const char* dispatches = "bottega_exchange_dispatches_total";
  const char* rows = "bottega_exchange_rows_total";
  raise(dispatches, "Dispatches", {{"transport", "none"}, {"outcome", "missing"}},
        s.dispatches_missing);
  for (const auto& [kind, of] : s.kinds) {
    raise(dispatches, "Dispatches", {{"transport", kind}, {"outcome", "ok"}}, of.dispatches);
    raise(rows, "Expert rows", {{"transport", kind}, {"direction", "sent"}}, of.rows_sent);
    raise(rows, "Expert rows", {{"transport", kind}, {"direction", "received"}}, of.rows_received);
  }
  const std::pair<const char*, uint64_t> resends[] = {{"endpoint", s.resends_endpoint},
                                                      {"removed", s.resends_removed},
                                                      {"nack", s.resends_nack},
                                                      {"corrupt", s.resends_corrupt},
                                                      {"lost", s.resends_lost},
                                                      {"suspect", s.resends_suspect},
                                                      {"not_finite", s.resends_not_finite},
                                                      {"quarantined", s.resends_quarantined}};
  for (const auto& [reason, value] : resends) {
    raise("bottega_exchange_resends_total", "Shares sent again", {{"reason", reason}}, value);
  }
  const std::pair<const char*, uint64_t> hedges[] = {
      {"sent", s.hedges}, {"denied", s.hedges_denied}, {"won", s.hedges_won}};
  for (const auto& [outcome, value] : hedges) {
    raise("bottega_exchange_hedges_total", "Second copies of late shares", {{"outcome", outcome}},
          value);
  }
  const std::pair<const char*, uint64_t> drops[] = {
      {"malformed", s.dropped_malformed}, {"incarnation", s.dropped_incarnation},
      {"stranger", s.dropped_stranger},   {"corrupt", s.dropped_corrupt},
      {"unknown", s.dropped_unknown},     {"mismatch", s.dropped_mismatch}};
  for (const auto& [reason, value] : drops) {
    raise("bottega_exchange_dropped_frames_total", "Frames not used", {{"reason", reason}}, value);
  }
  const std::pair<const char*, uint64_t> quarantines[] = {
      {"not_finite", s.quarantined_not_finite},
      {"wrong_frame", s.quarantined_wrong_frame},
      {"mismatch", s.quarantined_mismatch}};
  for (const auto& [reason, value] : quarantines) {
    raise("bottega_exchange_quarantines_total", "Expert workers found wrong", {{"reason", reason}},
          value);
  }
  const char* verified = "bottega_exchange_verified_total";
  const char* verified_help = "Dispatches executed twice, rows of them that differed";
  raise(verified, verified_help, {{"outcome", "dispatch"}}, s.verified);
  raise(verified, verified_help, {{"outcome", "mismatch"}}, s.verified_mismatches);
  raise(verified, verified_help, {{"outcome", "unresolved"}}, s.verified_unresolved);
  raise("bottega_exchange_poison_rows_total", "Tokens that three expert workers died with", {},
        s.poison_tokens);
  for (const auto& [kind, of] : s.kinds) {
    auto series = round_trip_.find(kind);
    if (series == round_trip_.end()) {
      prometheus::Histogram& added = AddHistogram(registry_, "bottega_exchange_round_trip_seconds",
                                                  "A frame's posting to its reply",
                                                  metrics::FineBuckets(), {{"transport", kind}});
      series = round_trip_.emplace(kind, added).first;
    }
    series->second.RaiseTo(of.round_trip);
  }
  wait_last_peer_.RaiseTo(s.wait_last_peer);
}

}  // namespace bottega
