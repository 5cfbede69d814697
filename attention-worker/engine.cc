#include "attention-worker/engine.h"

#include <algorithm>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/kernels/cpu/threads.h"

namespace bottega {
namespace {

uint64_t Microseconds(Duration d) {
  return static_cast<uint64_t>(d / std::chrono::microseconds(1));
}

// All of a decode step's tokens are sampled after.
int32_t DecodeTokensMax(const EngineOptions& options) {
  return options.limits.sequences + (options.draft_tokens > 0 ? limits::kDraftTokensMax : 0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    Loop& loop, Cpu cpu, const PackedModel& model, const AttentionWeights& weights,
    Dispatcher& experts, AttentionMetrics& metrics, EngineOptions options, OnEvents on_events) {
  ASSIGN_OR_RETURN(KvCache kv,
                   KvCache::Create(model.config(), options.row_type, options.kv_blocks));
  return std::unique_ptr<Engine>(new Engine(loop, cpu, model, weights, experts, metrics,
                                            std::move(options), std::move(on_events),
                                            std::move(kv)));
}

Engine::Engine(Loop& loop, Cpu cpu, const PackedModel& model, const AttentionWeights& weights,
               Dispatcher& experts, AttentionMetrics& metrics, EngineOptions options,
               OnEvents on_events, KvCache kv)
    : loop_(loop),
      cpu_(cpu),
      model_(model),
      experts_(experts),
      metrics_(metrics),
      stage_(loop, metrics),
      options_(std::move(options)),
      on_events_(std::move(on_events)),
      block_(cpu, model, weights, options_.row_type),
      kv_(std::move(kv)),
      speculation_(options_.draft_tokens > 0
                       ? std::make_optional<Speculation>(options_.draft_tokens)
                       : std::nullopt),
      scheduler_(options_.limits, options_.kv_blocks,
                 options_.spoil_freed ? [this](int32_t block) { kv_.Spoil(block); }
                                      : std::function<void(int32_t)>(),
                 options_.prefix_cache, speculation_ ? &*speculation_ : nullptr),
      scratch_(model.config(), model.weights(), options_.row_type,
               std::max(options_.limits.prefill_tokens, DecodeTokensMax(options_)),
               DecodeTokensMax(options_)),
      sampler_(model.config().vocab_size, cpu.pool->threads()),
      work_(loop) {}

absl::Status Engine::Submit(SequenceSpec spec) {
  const SequenceKey key = spec.key;
  RETURN_IF_ERROR(scheduler_.Add(std::move(spec)));
  Sequence& sequence = *scheduler_.Find(key);
  sequence.submitted = loop_.Now();
  Record(FlightKind::kTaken, sequence, sequence.spec.prompt_ids.size(),
         sequence.spec.resume_tokens.size());
  work_.Wake();
  return absl::OkStatus();
}

void Engine::StartTrial(const SequenceKey& key) {
  Sequence* sequence = scheduler_.Find(key);
  if (sequence == nullptr || sequence->trial != Trial::kOffered) return;
  sequence->trial = Trial::kRunning;
  work_.Wake();
}

void Engine::OfferTrial() {
  const Sequence* sequence = scheduler_.OfferTrial();
  if (sequence == nullptr) return;
  events_.trials.push_back({.key = sequence->spec.key, .owner_epoch = sequence->spec.owner_epoch});
}

// A sequence in the step under way is still written to, so cancels wait for the step's end.
void Engine::Cancel(const SequenceKey& key) {
  cancelled_.insert(key);
  work_.Wake();
}

void Engine::CancelOwner(OwnerId owner) {
  for (const auto& [order, sequence] : scheduler_.sequences()) {
    if (sequence->spec.key.owner == owner) Cancel(sequence->spec.key);
  }
}

Task<void> Engine::Run() {
  while (true) {
    const bool freed = ApplyCancels();
    ExpireDeadlines();
    OfferTrial();
    Flush(freed);
    const Shares shares = scheduler_.Pick(batch_);
    if (shares.empty()) {
      absl::Status woken = co_await work_.Wait(NextDeadline());
      continue;
    }
    const Time start = loop_.Now();
    ++step_key_;
    Begun(shares);
    const bool decode = shares.front().sequence->decoding();
    absl::Status done = co_await Step(shares);
    metrics_.Step(batch_, shares, loop_.Now() - start);
    Note(options_.flight, {.kind = FlightKind::kStep,
                           .key = step_key_,
                           .a = static_cast<uint64_t>(batch_.tokens()),
                           .b = Microseconds(loop_.Now() - start)});
    if (done.ok()) {
      scheduler_.Commit(shares);
      Emit(shares);
    } else {
      for (const auto& share : shares) {
        End(share.sequence->spec.key, share.sequence->spec.owner_epoch, done);
      }
    }
    Flush(false);
    co_await loop_.Yield();
    // With all that a step costs, so that fewer of them are worth what they save.
    if (speculation_ && decode) speculation_->StepTook(batch_.tokens(), loop_.Now() - start);
  }
}

// Waiting is over for those whose first step this is.
void Engine::Begun(const Shares& shares) {
  for (const auto& share : shares) {
    Sequence& sequence = *share.sequence;
    Record(FlightKind::kInStep, sequence, step_key_, static_cast<uint64_t>(share.tokens));
    if (sequence.started) continue;
    sequence.started = loop_.Now();
    const Duration waited = *sequence.started - sequence.submitted;
    metrics_.Queued(waited);
    Record(FlightKind::kStarted, sequence, step_key_, Microseconds(waited));
  }
}

// A token of `sequence` is out.
void Engine::Measure(Sequence& sequence, Finish finish) const {
  const Time now = loop_.Now();
  metrics_.Token(sequence, now, finish);
  sequence.last_token = now;
  if (!sequence.first_token) {
    sequence.first_token = now;
    metrics_.Prefilled(now - *sequence.started);
    Record(FlightKind::kPrefilled, sequence, step_key_, Microseconds(now - *sequence.started));
  }
  if (finish == Finish::kNone) return;
  metrics_.Decoded(now - *sequence.first_token);
  Record(FlightKind::kEnded, sequence, step_key_, sequence.generated());
}

void Engine::Record(FlightKind kind, const Sequence& sequence, uint64_t a, uint64_t b) const {
  Note(options_.flight, {.kind = kind, .key = sequence.spec.trace_key, .a = a, .b = b});
}

bool Engine::Drop(const SequenceKey& key) {
  if (const Sequence* sequence = scheduler_.Find(key)) {
    Record(FlightKind::kCancelled, *sequence, step_key_, sequence->generated());
  }
  return scheduler_.Remove(key);
}

bool Engine::ApplyCancels() {
  bool freed = false;
  for (const SequenceKey& key : cancelled_) {
    if (!Drop(key)) continue;
    metrics_.Abort("cancelled");
    freed = true;
  }
  cancelled_.clear();
  return freed;
}

void Engine::ExpireDeadlines() {
  const Time now = loop_.Now();
  std::vector<std::pair<SequenceKey, uint32_t>> expired;
  for (const auto& [order, sequence] : scheduler_.sequences()) {
    if (sequence->spec.deadline <= now) {
      expired.emplace_back(sequence->spec.key, sequence->spec.owner_epoch);
    }
  }
  for (const auto& [key, epoch] : expired) {
    End(key, epoch, MakeError(Reason::kDeadlineExceeded, "the request's deadline has passed"));
  }
}

Time Engine::NextDeadline() const {
  Time next = kNever;
  for (const auto& [order, sequence] : scheduler_.sequences()) {
    next = std::min(next, sequence->spec.deadline);
  }
  return next;
}

void Engine::End(SequenceKey key, uint32_t owner_epoch, absl::Status why) {
  if (!Drop(key)) return;
  metrics_.Abort(RowOf(ReasonOf(why)).name);
  events_.ended.push_back(
      {.key = key, .owner_epoch = owner_epoch, .finish = Finish::kError, .why = std::move(why)});
}

void Engine::Flush(bool freed) {
  if (events_.empty() && !freed) return;
  on_events_(events_);
  events_.tokens.clear();
  events_.ended.clear();
  events_.trials.clear();
}

std::vector<std::vector<uint32_t>> Engine::KvCrcs(const SequenceKey& key) const {
  std::vector<std::vector<uint32_t>> crcs;
  const auto found = std::find_if(scheduler_.sequences().begin(), scheduler_.sequences().end(),
                                  [&](const auto& entry) { return entry.second->spec.key == key; });
  if (found == scheduler_.sequences().end()) return crcs;
  const Sequence& sequence = *found->second;
  for (int layer = 0; layer < model_.config().num_layers; ++layer) {
    std::vector<uint32_t>& of_layer = crcs.emplace_back();
    for (int32_t position = 0; position < sequence.computed; ++position) {
      of_layer.push_back(kv_.Crc(layer, sequence.blocks[position / kKvBlockPositions],
                                 position % kKvBlockPositions));
    }
  }
  return crcs;
}

}  // namespace bottega
