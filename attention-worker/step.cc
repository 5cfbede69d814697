// The data path of the attention worker: one step over the running batch, in the words of the
// design: embed; per layer attend, gate, dispatch to the experts, combine; head; sample; emit.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "attention-worker/engine.h"
#include "core/base/crc32c.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

// A step that has waited for an expert in vain waits so long in each further layer: a request waits
// for experts once, not once a layer.
constexpr Duration kWaitAgain = std::chrono::seconds(1);

// Tokens times positions in one piece of a prefill's attention. 64 Ki of them, 32 heads of 128
// channels, K and V are half a billion multiply-adds: some milliseconds, as long as an expert
// worker's items. At the end of a long prompt all of a chunk's would be seconds. But no fewer
// tokens than read the KV together: rather fewer heads, down to one kv head, which in a context of
// 32 Ki makes twice as much.
constexpr int64_t kAttendWork = 1 << 16;

}  // namespace

Task<absl::Status> Engine::Step(StepContext& step) {
  const ModelConfig& model = model_.config();
  const StepBatch& batch = step.picked.batch;
  if (options_.trace != nullptr) options_.trace->BeginStep();
  step.experts_missed = false;
  NameOwners(step);
  if (options_.faults != nullptr) CO_RETURN_IF_ERROR(FAULT_POINT(*options_.faults, "aw.step"));

  if (absl::Status crash = CrashIf(batch); !crash.ok()) co_await loop_.SleepUntil(kNever);

  step.stage.Begin();
  block_.Embed(batch, step.scratch);
  step.stage.Done(StepStage::kEmbed);
  TraceRows(step, -1, "embed");
  for (int layer = 0; layer < model.num_layers; ++layer) {
    if (step.phase == FramePhase::kDecode) {
      Attend(step, layer);
    } else {
      co_await AttendInPieces(step, layer);
      if (step.picked.empty()) co_return absl::OkStatus();  // nobody is left to compute it for
    }
    step.stage.Done(StepStage::kAttend);
    TraceRows(step, layer, "attend");
    if (model.is_moe_layer[layer]) {
      absl::Status routed = co_await Experts(step, layer);
      if (!routed.ok()) co_return routed;
      block_.Combine(batch.tokens(), step.scratch);
      step.stage.Done(StepStage::kCombine);
    } else {
      co_await Dense(step, layer);
      if (step.picked.empty()) co_return absl::OkStatus();
      step.stage.Begin();
    }
    TraceRows(step, layer, "ffn");
  }
  slices_.EndPiece(loop_.Now());
  co_await Logits(step);
  step.stage.Done(StepStage::kLmHead);
  Sample(step);
  step.stage.Done(StepStage::kSample);
  co_return absl::OkStatus();
}

void Engine::Attend(StepContext& step, int layer) {
  const StepBatch& batch = step.picked.batch;
  const TokenRange all{.count = batch.tokens()};
  block_.Project(layer, batch, all, kv_.layer(layer), step.scratch);
  block_.Attend(batch, kv_.layer(layer), {.first = 0, .count = batch.tokens()}, step.scratch);
  block_.ProjectOut(layer, all, step.scratch);
}

// Runs it for all tokens, as many at a time as may be; those of sequences that have left meanwhile
// are left out.
Task<void> Engine::InPieces(StepContext& step, Piece piece,
                            absl::FunctionRef<void(TokenRange)> run) {
  const StepBatch& batch = step.picked.batch;
  for (int64_t done = 0; done < batch.tokens();) {
    const int64_t most = slices_.Most(piece);
    co_await MakeRoom(step, piece, std::min(most, batch.tokens() - done));
    done = DropGone(step, done);
    const int64_t count = std::min(most, batch.tokens() - done);
    if (count > 0) run({.first = done, .count = count});
    done += count;
  }
}

// The same, and between its pieces sequences may leave: at once where they do not attend any more,
// and with their rows where no piece is under way.
Task<void> Engine::AttendInPieces(StepContext& step, int layer) {
  const StepBatch& batch = step.picked.batch;
  const std::vector<Scheduler::Share>& shares = step.picked.shares;
  const int64_t kv_heads = model_.config().num_kv_heads;
  co_await InPieces(step, Piece::kProject, [&](TokenRange range) {
    block_.Project(layer, batch, range, kv_.layer(layer), step.scratch);
  });
  for (const Scheduler::Share& share : shares) {
    for (int64_t done = 0, head = 0; done < share.tokens;) {
      const int64_t sees = batch.positions[share.first + done] + 1;
      const int64_t together = kAttendWork / sees / kAttendTokensTogether * kAttendTokensTogether;
      const int64_t count =
          std::min(std::max(together, kAttendTokensTogether), share.tokens - done);
      const int64_t heads =
          std::clamp<int64_t>(2 * kAttendWork * kv_heads / (count * sees), 1, kv_heads);
      const int64_t now = std::min(heads, kv_heads - head);
      co_await MakeRoom(step, Piece::kAttend, count * sees * now);
      if (share.sequence == nullptr) break;
      block_.Attend(
          batch, kv_.layer(layer),
          {.first = share.first + done, .count = count, .first_kv_head = head, .kv_heads = now},
          step.scratch);
      head += now;
      if (head < kv_heads) continue;
      head = 0;
      done += count;
    }
  }
  co_await InPieces(step, Piece::kProjectOut,
                    [&](TokenRange range) { block_.ProjectOut(layer, range, step.scratch); });
  co_await MakeRoom(step, Piece::kFfn, batch.tokens());
  DropGone(step);
}

// A layer without experts.
Task<void> Engine::Dense(StepContext& step, int layer) {
  const auto run = [&](TokenRange range) { block_.Dense(layer, range, step.scratch); };
  if (step.phase == FramePhase::kPrefill) {
    co_await InPieces(step, Piece::kFfn, run);
  } else {
    run({.count = step.picked.batch.tokens()});
    co_await loop_.Yield();
  }
}

// Nobody leaves between its pieces.
Task<void> Engine::Logits(StepContext& step) {
  const StepBatch& batch = step.picked.batch;
  const int64_t rows = static_cast<int64_t>(batch.sampled.size());
  for (int64_t done = 0; done < rows;) {
    if (done > 0) co_await loop_.Yield();
    const int64_t count = std::min(slices_.Most(Piece::kHead), rows - done);
    slices_.BeginPiece(Piece::kHead, count, loop_.Now());
    block_.Logits(batch, {.first = done, .count = count}, step.scratch);
    slices_.EndPiece(loop_.Now());
    done += count;
  }
}

void Engine::NameOwners(StepContext& step) {
  step.owners.clear();
  const auto& shares = step.picked.shares;
  for (size_t i = 0; i < shares.size(); ++i) {
    step.owners.insert(step.owners.end(), shares[i].tokens, static_cast<int32_t>(i));
  }
}

// aw.crash_if=crash:ID dies of a token.
absl::Status Engine::CrashIf(const StepBatch& batch) const {
  if (options_.faults == nullptr) return absl::OkStatus();
  for ([[maybe_unused]] int32_t id : batch.ids) {
    RETURN_IF_ERROR(FAULT_POINT_IF(*options_.faults, "aw.crash_if", id));
  }
  return absl::OkStatus();
}

// aw.mark_if=error:ID makes a token's rows such that ew.crash_if=crash:1111638594 dies of them.
void Engine::MarkRows(StepContext& step) {
  if (options_.faults == nullptr) return;
  const size_t row_bytes = model_.config().hidden_size * SizeOf(options_.row_type);
  const std::vector<int32_t>& ids = step.picked.batch.ids;
  for (size_t token = 0; token < ids.size(); ++token) {
    if (FAULT_POINT_IF(*options_.faults, "aw.mark_if", ids[token]).ok()) continue;
    std::memset(step.scratch.rows.data() + token * row_bytes, 0x42, row_bytes);
  }
}

// Gate, then the exchange: every chosen expert's row for every token, or the tokens that lack one.
Task<absl::Status> Engine::Experts(StepContext& step, int layer) {
  StepScratch& scratch = step.scratch;
  const int64_t tokens = step.picked.batch.tokens();
  if (block_.Gate(layer, tokens, scratch) > 0) {
    std::vector<int32_t> bad;
    for (int32_t token = 0; token < tokens; ++token) {
      if (scratch.bad.As<uint8_t>()[token] != 0) bad.push_back(token);
    }
    FailTokens(step, bad,
               MakeError(Reason::kInternalError, "a router logit is not a finite number"));
  }
  MarkRows(step);
  const bool skips = SkipFailed(step);
  const DispatchRequest request{
      .request_key = step.key,
      .layer = LayerId{static_cast<uint16_t>(layer)},
      .phase = step.phase,
      .tokens = static_cast<int32_t>(tokens),
      .rows = scratch.rows.data(),
      .experts = scratch.expert_ids.As<uint16_t>().data(),
      .owners = step.owners.data(),
      .skip = skips ? step.skip.data() : nullptr,
      .deadline = step.experts_missed ? loop_.Now() + kWaitAgain : kNever};
  step.stage.Done(StepStage::kGate);
  absl::StatusOr<DispatchResult> result =
      co_await experts_.Dispatch(request, scratch.replies.data());
  step.stage.Done(StepStage::kExchangeWait);
  if (!result.ok()) co_return result.status();
  if (!result->failed_tokens.empty()) {
    step.experts_missed = true;
    FailTokens(step, result->poison_tokens,
               MakeError(Reason::kRequestQuarantined, "expert workers died of this request"));
    FailTokens(
        step, result->failed_tokens,
        MakeError(Reason::kExpertsUnavailable, fmt::format("no worker serves expert {} of layer {}",
                                                           result->missing.front().value, layer)));
  }
  co_return absl::OkStatus();
}

// What has failed goes through the rest of the step, but no worker is shown it: it would be blamed
// for what it makes of numbers that are not finite, or die as others did.
bool Engine::SkipFailed(StepContext& step) {
  const size_t reply_bytes = model_.config().experts_per_token * model_.config().hidden_size *
                             SizeOf(options_.row_type);  // of a token
  step.skip.assign(step.owners.size(), 0);
  bool any = false;
  for (size_t token = 0; token < step.owners.size(); ++token) {
    const Scheduler::Share& share = step.picked.shares[step.owners[token]];
    const bool lost = !share.failed.ok() ||
                      static_cast<int32_t>(token) >= share.first_drafted() + share.computable;
    if (!lost) continue;
    step.skip[token] = any = true;
    std::memset(step.scratch.replies.data() + token * reply_bytes, 0, reply_bytes);
  }
  return any;
}

// A guess that cannot be computed fails nobody until it is known to be the text (EmitSampled).
void Engine::FailTokens(StepContext& step, const std::vector<int32_t>& tokens,
                        const absl::Status& why) {
  for (int32_t token : tokens) {
    Scheduler::Share& share = step.picked.shares[step.owners[token]];
    const int32_t drafted = token - share.first_drafted();
    if (drafted < 0) {
      if (share.failed.ok()) share.failed = why;  // the first reason stays
    } else if (drafted < share.computable) {
      share.computable = drafted;
      share.draft_failed = why;
    }
  }
}

void Engine::Sample(StepContext& step) {
  const ModelConfig& model = model_.config();
  const size_t sampled = step.picked.batch.sampled.size();
  step.rows.clear();
  step.top.resize(sampled * limits::kTopLogprobsMax);
  if (step.edits.size() < sampled) step.edits.resize(sampled);
  for (const auto& share : step.picked.shares) {
    if (!share.sample) continue;
    Sequence& sequence = *share.sequence;
    const SequenceSpec& spec = sequence.spec;
    CatchUp(sequence);
    // A row takes the drafted tokens before it for text: where they are not, nobody looks at it.
    for (int32_t ahead = 0; ahead <= share.drafted; ++ahead) {
      const int64_t sample = *share.sample + ahead;
      float* logits = step.scratch.logits.As<float>().data() + sample * model.vocab_size;
      if (options_.faults != nullptr) {
        FAULT_CORRUPT(*options_.faults, "aw.logits",
                      absl::MakeSpan(reinterpret_cast<std::byte*>(logits), 2 * sizeof(float)));
      }
      const auto drafted = absl::MakeConstSpan(sequence.drafts.tokens).first(ahead);
      step.rows.push_back({.logits = logits,
                           .edits = EditsOf(sequence, drafted, model.eos_ids, step.edits[sample]),
                           .params = spec.sampling,
                           .position = sequence.length() + ahead,
                           .top = absl::MakeSpan(step.top).subspan(
                               sample * limits::kTopLogprobsMax, std::max(0, spec.top_logprobs))});
    }
  }
  sampler_.Sample(cpu_, absl::MakeSpan(step.rows));
}

void Engine::Emit(StepContext& step) {
  for (const auto& share : step.picked.shares) {
    Sequence& sequence = *share.sequence;
    if (!share.failed.ok()) {
      Fail(sequence, share.failed);
    } else if (share.sample) {
      EmitSampled(step, share);
    } else {
      scheduler_.Publish(sequence);
    }
  }
}

// One token, and one more after each drafted one that was right: the walk that as many plain steps
// would have made, with its ends and failures. What comes after the first wrong one was computed of
// a prefix that does not exist: nobody looks at it, and the next steps write over its K and V.
void Engine::EmitSampled(const StepContext& step, const Scheduler::Share& share) {
  Sequence& sequence = *share.sequence;
  const int32_t accepted = Accepted(step, share);
  if (share.drafted > 0) Judge(share, accepted);
  for (int32_t ahead = 0; ahead <= accepted; ++ahead) {
    if (ahead > 0) {
      const int32_t drafted = ahead - 1;
      if (drafted == share.computable) return Fail(sequence, share.draft_failed);
      ++sequence.computed;
      if (options_.trace != nullptr) options_.trace->Keep(share.first_drafted() + drafted);
    }
    const SampleRow& row = step.rows[*share.sample + ahead];
    if (!row.status.ok()) return Fail(sequence, row.status);
    if (EmitToken(step, sequence, row)) return;
  }
  scheduler_.Publish(sequence);
  scheduler_.ReleaseDraft(sequence);
}

// How many of its drafted tokens, from the first on, are what was sampled in their place.
int32_t Engine::Accepted(const StepContext& step, const Scheduler::Share& share) const {
  const std::vector<int32_t>& draft = share.sequence->drafts.tokens;
  int32_t accepted = 0;
  while (accepted < share.drafted) {
    const SampleRow& row = step.rows[*share.sample + accepted];
    if (!row.status.ok() || row.chosen.token != draft[accepted]) break;
    ++accepted;
  }
  return accepted;
}

void Engine::Judge(const Scheduler::Share& share, int32_t accepted) {
  Sequence& sequence = *share.sequence;
  speculation_->Verified(sequence, accepted);
  Record(FlightKind::kVerified, sequence, static_cast<uint64_t>(share.drafted),
         static_cast<uint64_t>(accepted));
  // A guess that expert workers are missing for, or die of, has cost enough.
  sequence.drafts.stopped = !share.draft_failed.ok();
}

// Returns whether it was the sequence's last.
bool Engine::EmitToken(const StepContext& step, Sequence& sequence, const SampleRow& row) {
  const ModelConfig& model = model_.config();
  const SequenceSpec& spec = sequence.spec;
  const int32_t id = row.chosen.token;
  TokenEvent event{.key = spec.key,
                   .owner_epoch = spec.owner_epoch,
                   .index = sequence.generated(),
                   .cached = static_cast<uint32_t>(sequence.replays ? 0 : sequence.hit),
                   .id = id,
                   .logprob = row.chosen.logprob,
                   .top = {row.top.begin(), row.top.end()}};
  sequence.tokens.push_back(id);
  sequence.trial = Trial::kNone;  // it got on
  const auto contains = [id](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if ((!spec.ignore_eos && contains(model.eos_ids)) || contains(spec.stop_token_ids)) {
    event.finish = Finish::kStop;
  } else if (sequence.generated() >= spec.max_tokens) {
    event.finish = Finish::kLength;
  }
  const bool last = event.finish != Finish::kNone;
  Measure(step, sequence, event.finish);
  if (last) {
    scheduler_.Publish(sequence);
    scheduler_.Remove(spec.key);
  }
  events_.tokens.push_back(std::move(event));
  return last;
}

// A number that is none: why nobody knows, it may be what is in the cache.
void Engine::Fail(const Sequence& sequence, const absl::Status& why) {
  if (ReasonOf(why) == Reason::kInternalError) scheduler_.Withdraw(sequence);
  End(sequence.spec.key, sequence.spec.owner_epoch, why);
}

void Engine::TraceRows(const StepContext& step, int layer, std::string_view stage) const {
  if (options_.trace == nullptr) return;
  const size_t row_bytes = model_.config().hidden_size * sizeof(float);
  const std::byte* row = step.scratch.x.data();
  int32_t token = 0;  // of the batch
  for (const auto& share : step.picked.shares) {
    const SequenceSpec& spec = share.sequence->spec;
    const uint64_t sequence =
        (uint64_t{Crc32c(spec.prompt_ids.data(), spec.prompt_ids.size() * sizeof(int32_t))} << 32 |
         Crc32c(&spec.sampling.seed, sizeof spec.sampling.seed)) ^
        spec.sampling.choice;
    for (int32_t i = 0; i < share.tokens; ++i, ++token, row += row_bytes) {
      const int32_t position = share.sequence->computed + i;
      if (i < share.tokens - share.drafted) {
        options_.trace->Write(sequence, position, layer, stage, row, row_bytes);
      } else {
        options_.trace->WriteIfKept(token, sequence, position, layer, stage, row, row_bytes);
      }
    }
  }
}

}  // namespace bottega
