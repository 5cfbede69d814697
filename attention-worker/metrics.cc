#include "attention-worker/metrics.h"

#include <algorithm>
#include <chrono>

namespace bottega {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;
using metrics::AddHistogram;

double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }

// A counter follows a number that only grows.
void RaiseTo(prometheus::Counter& counter, uint64_t value) {
  const double difference = static_cast<double>(value) - counter.Value();
  if (difference > 0) counter.Increment(difference);
}

}  // namespace

AttentionMetrics::AttentionMetrics(prometheus::Registry& r, const std::string& model,
                                   const std::string& transport)
    : registry_(r),
      transport_(transport),
      running_(AddGauge(r, "bottega_attention_requests_running", "Sequences that decode",
                        {{"model_name", model}})),
      waiting_(AddGauge(r, "bottega_attention_requests_waiting",
                        "Sequences whose prompt is not done", {{"model_name", model}})),
      kv_usage_(AddGauge(r, "bottega_attention_kv_usage_ratio", "Used share of the KV pool")),
      kv_free_(AddGauge(r, "bottega_attention_kv_blocks", "KV blocks", {{"state", "free"}})),
      kv_used_(AddGauge(r, "bottega_attention_kv_blocks", "KV blocks", {{"state", "used"}})),
      prompt_tokens_(AddCounter(r, "bottega_attention_prompt_tokens_total", "Prompt tokens",
                                {{"model_name", model}, {"source", "computed"}})),
      generation_tokens_(AddCounter(r, "bottega_attention_generation_tokens_total",
                                    "Generated tokens", {{"model_name", model}})),
      preemptions_(AddCounter(r, "bottega_attention_preemptions_total",
                              "Sequences that gave up their KV blocks")),
      decode_seconds_(AddHistogram(r, "bottega_attention_step_seconds", "Duration of a step",
                                   metrics::InterTokenBuckets(), {{"phase", "decode"}})),
      prefill_seconds_(AddHistogram(r, "bottega_attention_step_seconds", "Duration of a step",
                                    metrics::InterTokenBuckets(), {{"phase", "prefill"}})),
      exchange_wait_seconds_(AddHistogram(r, "bottega_attention_stage_seconds",
                                          "Duration of a stage of a step", metrics::FineBuckets(),
                                          {{"stage", "exchange_wait"}})),
      batch_tokens_(AddHistogram(r, "bottega_attention_batch_tokens", "Tokens in a step",
                                 metrics::RowBuckets())),
      batch_requests_(AddHistogram(r, "bottega_attention_batch_requests", "Sequences in a step",
                                   metrics::RowBuckets())) {}

void AttentionMetrics::Step(const StepBatch& batch, const std::vector<Scheduler::Share>& shares,
                            Duration took) {
  // Nothing of the step is committed yet: what is being decoded still is one token short.
  const bool decode = shares.front().sequence->decoding();
  (decode ? decode_seconds_ : prefill_seconds_).Observe(Seconds(took));
  batch_tokens_.Observe(static_cast<double>(batch.tokens()));
  batch_requests_.Observe(static_cast<double>(shares.size()));
  generation_tokens_.Increment(static_cast<double>(batch.sampled.size()));
  if (!decode) prompt_tokens_.Increment(static_cast<double>(batch.tokens()));
}

void AttentionMetrics::Pool(const Scheduler& scheduler) {
  int decoding = 0;
  for (const auto& [order, sequence] : scheduler.sequences()) decoding += sequence->decoding();
  running_.Set(decoding);
  waiting_.Set(static_cast<double>(scheduler.sequences().size()) - decoding);
  const int used = scheduler.total_blocks() - scheduler.free_blocks();
  kv_free_.Set(scheduler.free_blocks());
  kv_used_.Set(used);
  kv_usage_.Set(static_cast<double>(used) / std::max(1, scheduler.total_blocks()));
  RaiseTo(preemptions_, scheduler.preemptions());
}

void AttentionMetrics::Abort(std::string_view reason) {
  AddCounter(registry_, "bottega_attention_aborts_total", "Sequences that ended early",
             {{"reason", std::string(reason)}})
      .Increment();
}

void AttentionMetrics::ExchangeWait(Duration waited) {
  exchange_wait_seconds_.Observe(Seconds(waited));
}

void AttentionMetrics::Exchange(const DispatcherStats& s, size_t credits_in_use, size_t peers) {
  const auto raise = [&](const char* name, const char* help, metrics::Labels labels,
                         uint64_t value) {
    RaiseTo(AddCounter(registry_, name, help, labels), value);
  };
  const char* dispatches = "bottega_exchange_dispatches_total";
  raise(dispatches, "Dispatches", {{"transport", transport_}, {"outcome", "ok"}},
        s.dispatches - s.dispatches_missing);
  raise(dispatches, "Dispatches", {{"transport", transport_}, {"outcome", "missing"}},
        s.dispatches_missing);
  const char* bytes = "bottega_exchange_bytes_total";
  raise(bytes, "Bytes of frames", {{"transport", transport_}, {"direction", "sent"}}, s.bytes_sent);
  raise(bytes, "Bytes of frames", {{"transport", transport_}, {"direction", "received"}},
        s.bytes_received);
  const char* rows = "bottega_exchange_rows_total";
  raise(rows, "Expert rows", {{"transport", transport_}, {"direction", "sent"}}, s.rows_sent);
  raise(rows, "Expert rows", {{"transport", transport_}, {"direction", "received"}},
        s.rows_received);
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
  AddGauge(registry_, "bottega_exchange_credits_in_use", "Rows in flight")
      .Set(static_cast<double>(credits_in_use));
  AddGauge(registry_, "bottega_exchange_endpoints", "Open endpoints",
           {{"transport", transport_}, {"state", "up"}})
      .Set(static_cast<double>(peers));
}

}  // namespace bottega
