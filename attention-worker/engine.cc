#include "attention-worker/engine.h"

#include <algorithm>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/kernels/cpu/threads.h"

namespace bottega {
namespace {

// All of a decode step's tokens are sampled after.
int32_t DecodeTokensMax(const EngineOptions& options) {
  return options.limits.sequences + (options.draft_tokens > 0 ? limits::kDraftTokensMax : 0);
}

// Choices of one prompt of one request.
bool AreSiblings(const Sequence& a, const Sequence& b) {
  return a.spec.key.owner == b.spec.key.owner && a.spec.trace_key == b.spec.trace_key &&
         a.spec.sampling.choice != b.spec.sampling.choice && a.spec.prompt_ids == b.spec.prompt_ids;
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
      slices_(options_.step_budget),
      decode_(FramePhase::kDecode, scheduler_.decode(),
              StepScratch(model.config(), model.weights(), options_.row_type,
                          DecodeTokensMax(options_), DecodeTokensMax(options_)),
              StageClock(loop, metrics)),
      prefill_(FramePhase::kPrefill, scheduler_.prefill(),
               StepScratch(model.config(), model.weights(), options_.row_type,
                           options_.limits.prefill_tokens,
                           std::min(options_.limits.prefill_tokens, options_.limits.sequences)),
               StageClock(loop, metrics)),
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

// A sequence in a piece under way is still written to: its cancel waits for the piece's end.
void Engine::Cancel(const SequenceKey& key) {
  cancelled_.insert(key);
  work_.Wake();
}

void Engine::CancelOwner(OwnerId owner) {
  for (const auto& [rank, sequence] : scheduler_.sequences()) {
    if (sequence->spec.key.owner == owner) Cancel(sequence->spec.key);
  }
}

Task<void> Engine::Run() {
  while (true) {
    TakeStock();
    const bool decoded = !scheduler_.PickDecode().empty();
    if (decoded) co_await RunStep(decode_);
    const int32_t most = options_.limits.prefill_tokens;
    slices_.BeginSlice(loop_.Now());
    const bool prefilled =
        !scheduler_.PickPrefill(decoded ? slices_.StepTokens(most) : most).empty();
    if (prefilled) co_await RunStep(prefill_);
    if (decoded || prefilled) continue;
    if (!scheduler_.PickDecode().empty()) {
      co_await RunStep(decode_);  // cached but for a token: PickPrefill has found that out
    } else {
      absl::Status woken = co_await work_.Wait(NextDeadline());
    }
  }
}

// What has come in since the last time takes effect.
void Engine::TakeStock() {
  const bool freed = ApplyCancels();
  ExpireDeadlines();
  OfferTrial();
  Flush(freed);
}

Task<void> Engine::RunStep(StepContext& step) {
  const Time start = loop_.Now();
  step.key = ++step_key_;
  step.paused = Duration::zero();
  Begun(step);
  absl::Status done = co_await Step(step);
  const Duration took = loop_.Now() - start - step.paused;
  if (!step.picked.empty()) metrics_.Step(step.phase, step.picked, took);
  Note(options_.flight, {.kind = FlightKind::kStep,
                         .key = step.key,
                         .a = static_cast<uint64_t>(step.picked.batch.tokens()),
                         .b = static_cast<uint64_t>(Microseconds(took))});
  if (step.phase == FramePhase::kDecode) slices_.DecodeTook(took);
  if (done.ok()) {
    scheduler_.Commit(step.picked);
    Emit(step);
  } else {
    for (const auto& share : step.picked.shares) {
      const SequenceSpec& spec = share.sequence->spec;
      End(spec.key, spec.owner_epoch, done);
    }
  }
  const int64_t tokens = step.picked.batch.tokens();
  step.picked.Clear();
  Flush(false);
  co_await loop_.Yield();
  // With all that a step costs, so that fewer of them are worth what they save.
  if (speculation_ && step.phase == FramePhase::kDecode) {
    speculation_->StepTook(tokens, loop_.Now() - start);
  }
}

// Cancelled and expired sequences go, those of this step too; streams that decode get their next
// token if this step would keep them for longer than its slice.
Task<void> Engine::MakeRoom(StepContext& prefill, Piece next, int64_t work) {
  slices_.EndPiece(loop_.Now());
  co_await loop_.Yield();
  const Time from = loop_.Now();
  TakeStock();
  if (!slices_.Fits(next, work, from) && !scheduler_.PickDecode().empty()) {
    metrics_.Slice(from - slices_.slice_began(), slices_.budget());
    co_await RunStep(decode_);
    slices_.BeginSlice(loop_.Now());
  }
  const Duration pause = loop_.Now() - from;
  prefill.paused += pause;
  prefill.stage.Skip(pause);
  slices_.BeginPiece(next, work, loop_.Now());
}

// What has left since the step began: cancelled, expired, or preempted by a decode step.
int64_t Engine::DropGone(StepContext& prefill, int64_t done) {
  const size_t before = prefill.picked.shares.size();
  int64_t still_done = 0;
  for (const auto& share : prefill.picked.shares) {
    if (share.sequence == nullptr) continue;
    still_done += std::clamp<int64_t>(done - share.first, 0, share.tokens);
  }
  prefill.picked.DropGone([&prefill](int64_t from, int64_t to, int64_t count) {
    prefill.scratch.MoveTokens(from, to, count);
  });
  if (prefill.picked.shares.size() < before) NameOwners(prefill);
  return still_done;
}

// Waiting is over for those whose first step this is.
void Engine::Begun(const StepContext& step) {
  for (const auto& share : step.picked.shares) {
    Sequence& sequence = *share.sequence;
    Record(FlightKind::kInStep, sequence, step.key, static_cast<uint64_t>(share.tokens));
    if (sequence.started) continue;
    sequence.started = loop_.Now();
    const Duration waited = *sequence.started - sequence.submitted;
    metrics_.Queued(waited);
    Record(FlightKind::kStarted, sequence, step.key, static_cast<uint64_t>(Microseconds(waited)));
  }
}

// How much a request's longest choice has got is known when the last of them here has finished:
// until then a sibling keeps it.
void Engine::MeasureChoice(const Sequence& finished) const {
  const uint32_t longest = std::max(finished.longest_sibling, finished.generated());
  if (finished.spec.choices > 1) {
    for (const auto& [rank, other] : scheduler_.sequences()) {
      if (!AreSiblings(*other, finished)) continue;
      other->longest_sibling = std::max(other->longest_sibling, longest);
      return;
    }
  }
  metrics_.vllm().LastChoice(longest);
}

// A token of `sequence` is out.
void Engine::Measure(const StepContext& step, Sequence& sequence, Finish finish) const {
  const Time now = loop_.Now();
  metrics_.Token(sequence, now, finish);
  sequence.last_token = now;
  if (!sequence.first_token) {
    sequence.first_token = now;
    metrics_.Prefilled(now - *sequence.started);
    Record(FlightKind::kPrefilled, sequence, step.key,
           static_cast<uint64_t>(Microseconds(now - *sequence.started)));
  }
  if (finish == Finish::kNone) return;
  MeasureChoice(sequence);
  metrics_.Decoded(now - *sequence.first_token);
  Record(FlightKind::kEnded, sequence, step.key, sequence.generated());
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
  expired_.clear();
  for (const auto& [rank, sequence] : scheduler_.sequences()) {
    if (sequence->spec.deadline <= now) {
      expired_.emplace_back(sequence->spec.key, sequence->spec.owner_epoch);
    }
  }
  for (const auto& [key, epoch] : expired_) {
    End(key, epoch, MakeError(Reason::kDeadlineExceeded, "the request's deadline has passed"));
  }
}

Time Engine::NextDeadline() const {
  Time next = kNever;
  for (const auto& [rank, sequence] : scheduler_.sequences()) {
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
