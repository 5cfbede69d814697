// The data path of the attention worker: one step over the running batch, in the words of the
// design: embed; per layer attend, gate, dispatch to the experts, combine; head; sample; emit.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

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

}  // namespace

Task<absl::Status> Engine::Step(const Shares& shares) {
  const ModelConfig& model = model_.config();
  const int64_t tokens = batch_.tokens();
  const FramePhase phase =
      shares.front().sequence->decoding() ? FramePhase::kDecode : FramePhase::kPrefill;
  failed_.clear();
  if (options_.trace != nullptr) options_.trace->BeginStep();
  experts_missed_ = false;
  owners_.clear();
  for (size_t i = 0; i < shares.size(); ++i) {
    owners_.insert(owners_.end(), shares[i].tokens, static_cast<int32_t>(i));
  }
  if (options_.faults != nullptr) CO_RETURN_IF_ERROR(FAULT_POINT(*options_.faults, "aw.step"));

  if (absl::Status crash = CrashIf(); !crash.ok()) co_await loop_.SleepUntil(kNever);

  stage_.Begin();
  block_.Embed(batch_, scratch_);
  stage_.Done(StepStage::kEmbed);
  TraceRows(shares, -1, "embed", scratch_.x.data(), model.hidden_size * sizeof(float));
  for (int layer = 0; layer < model.num_layers; ++layer) {
    block_.Attend(layer, batch_, kv_.layer(layer), scratch_);
    stage_.Done(StepStage::kAttend);
    TraceRows(shares, layer, "attend", scratch_.x.data(), model.hidden_size * sizeof(float));
    if (model.is_moe_layer[layer]) {
      absl::Status routed = co_await Experts(layer, phase);
      if (!routed.ok()) co_return routed;
      block_.Combine(tokens, scratch_);
      stage_.Done(StepStage::kCombine);
    } else {
      block_.Dense(layer, tokens, scratch_);
      co_await loop_.Yield();
      stage_.Begin();
    }
    TraceRows(shares, layer, "ffn", scratch_.x.data(), model.hidden_size * sizeof(float));
  }
  block_.Logits(batch_, scratch_);
  stage_.Done(StepStage::kLmHead);
  Sample(shares);
  stage_.Done(StepStage::kSample);
  co_return absl::OkStatus();
}

// aw.crash_if=crash:ID dies of a token.
absl::Status Engine::CrashIf() const {
  if (options_.faults == nullptr) return absl::OkStatus();
  for ([[maybe_unused]] int32_t id : batch_.ids) {
    RETURN_IF_ERROR(FAULT_POINT_IF(*options_.faults, "aw.crash_if", id));
  }
  return absl::OkStatus();
}

// aw.mark_if=error:ID makes a token's rows such that ew.crash_if=crash:1111638594 dies of them.
void Engine::MarkRows() {
  if (options_.faults == nullptr) return;
  const size_t row_bytes = model_.config().hidden_size * SizeOf(options_.row_type);
  for (size_t token = 0; token < batch_.ids.size(); ++token) {
    if (FAULT_POINT_IF(*options_.faults, "aw.mark_if", batch_.ids[token]).ok()) continue;
    std::memset(scratch_.rows.data() + token * row_bytes, 0x42, row_bytes);
  }
}

// Gate, then the exchange: every chosen expert's row for every token, or the tokens that lack one.
Task<absl::Status> Engine::Experts(int layer, FramePhase phase) {
  const ModelConfig& model = model_.config();
  const int64_t tokens = batch_.tokens();
  const size_t row_bytes = model.hidden_size * SizeOf(options_.row_type);
  if (block_.Gate(layer, tokens, scratch_) > 0) {
    std::vector<int32_t> bad;
    for (int32_t token = 0; token < tokens; ++token) {
      if (scratch_.bad.As<uint8_t>()[token] != 0) bad.push_back(token);
    }
    FailTokens(bad, MakeError(Reason::kInternalError, "a router logit is not a finite number"));
  }
  MarkRows();
  // What has failed goes through the rest of the step, but no worker is shown it: it would be
  // blamed for what it makes of numbers that are not finite, or die as others did.
  if (!failed_.empty()) skip_.assign(tokens, 0);
  for (const auto& [token, why] : failed_) {
    skip_[token] = 1;
    std::memset(scratch_.replies.data() + token * model.experts_per_token * row_bytes, 0,
                model.experts_per_token * row_bytes);
  }
  const DispatchRequest request{.request_key = step_key_,
                                .layer = LayerId{static_cast<uint16_t>(layer)},
                                .phase = phase,
                                .tokens = static_cast<int32_t>(tokens),
                                .rows = scratch_.rows.data(),
                                .experts = scratch_.expert_ids.As<uint16_t>().data(),
                                .owners = owners_.data(),
                                .skip = failed_.empty() ? nullptr : skip_.data(),
                                .deadline = experts_missed_ ? loop_.Now() + kWaitAgain : kNever};
  stage_.Done(StepStage::kGate);
  absl::StatusOr<DispatchResult> result =
      co_await experts_.Dispatch(request, scratch_.replies.data());
  stage_.Done(StepStage::kExchangeWait);
  if (!result.ok()) co_return result.status();
  if (!result->failed_tokens.empty()) {
    experts_missed_ = true;
    FailTokens(result->poison_tokens,
               MakeError(Reason::kRequestQuarantined, "expert workers died of this request"));
    FailTokens(
        result->failed_tokens,
        MakeError(Reason::kExpertsUnavailable, fmt::format("no worker serves expert {} of layer {}",
                                                           result->missing.front().value, layer)));
  }
  co_return absl::OkStatus();
}

void Engine::FailTokens(const std::vector<int32_t>& tokens, const absl::Status& why) {
  for (int32_t token : tokens) failed_.emplace(token, why);  // the first reason stays
}

void Engine::Sample(const Shares& shares) {
  const ModelConfig& model = model_.config();
  rows_.clear();
  top_.resize(batch_.sampled.size() * limits::kTopLogprobsMax);
  for (const auto& share : shares) {
    if (!share.sample) continue;
    const SequenceSpec& spec = share.sequence->spec;
    // Nothing here may depend on tokens before but through their number: of drafted ones it is not
    // known yet whether they stay.
    for (int32_t ahead = 0; ahead <= share.drafted; ++ahead) {
      const int64_t sample = *share.sample + ahead;
      float* logits = scratch_.logits.As<float>().data() + sample * model.vocab_size;
      if (share.sequence->generated() + static_cast<uint32_t>(ahead) < spec.min_tokens) {
        for (const auto* ids : {&model.eos_ids, &spec.stop_token_ids}) {
          for (int32_t id : *ids) logits[id] = -std::numeric_limits<float>::infinity();
        }
      }
      if (options_.faults != nullptr) {
        FAULT_CORRUPT(*options_.faults, "aw.logits",
                      absl::MakeSpan(reinterpret_cast<std::byte*>(logits), 2 * sizeof(float)));
      }
      rows_.push_back({.logits = logits,
                       .params = spec.sampling,
                       .position = share.sequence->length() + ahead,
                       .top = absl::MakeSpan(top_).subspan(sample * limits::kTopLogprobsMax,
                                                           std::max(0, spec.top_logprobs))});
    }
  }
  sampler_.Sample(cpu_, absl::MakeSpan(rows_));
}

void Engine::Emit(const Shares& shares) {
  int32_t first = 0;  // token of the batch at which the share begins
  for (const auto& share : shares) {
    Sequence& sequence = *share.sequence;
    const int32_t first_drafted = first + share.tokens - share.drafted;
    const auto failure = failed_.lower_bound(first);
    const bool failed = failure != failed_.end() && failure->first < first_drafted;
    first += share.tokens;
    if (failed) {
      Fail(sequence, failure->second);
    } else if (share.sample) {
      EmitSampled(share, first_drafted);
    } else {
      scheduler_.Publish(sequence);
    }
  }
}

// One token, and one more after each drafted one that was right: the walk that as many plain steps
// would have made, with its ends and failures. What comes after the first wrong one was computed of
// a prefix that does not exist: nobody looks at it, and the next steps write over its K and V.
void Engine::EmitSampled(const Scheduler::Share& share, int32_t first_drafted) {
  Sequence& sequence = *share.sequence;
  const int32_t accepted = Accepted(share);
  if (share.drafted > 0) Judge(share, first_drafted, accepted);
  for (int32_t ahead = 0; ahead <= accepted; ++ahead) {
    if (ahead > 0) {
      const auto failure = failed_.find(first_drafted + ahead - 1);
      if (failure != failed_.end()) return Fail(sequence, failure->second);
      ++sequence.computed;
      if (options_.trace != nullptr) options_.trace->Keep(first_drafted + ahead - 1);
    }
    const SampleRow& row = rows_[*share.sample + ahead];
    if (!row.status.ok()) return Fail(sequence, row.status);
    if (EmitToken(sequence, row)) return;
  }
  scheduler_.Publish(sequence);
  scheduler_.ReleaseDraft(sequence);
}

// How many of its drafted tokens, from the first on, are what was sampled in their place.
int32_t Engine::Accepted(const Scheduler::Share& share) const {
  const std::vector<int32_t>& draft = share.sequence->drafts.tokens;
  int32_t accepted = 0;
  while (accepted < share.drafted) {
    const SampleRow& row = rows_[*share.sample + accepted];
    if (!row.status.ok() || row.chosen.token != draft[accepted]) break;
    ++accepted;
  }
  return accepted;
}

void Engine::Judge(const Scheduler::Share& share, int32_t first_drafted, int32_t accepted) {
  Sequence& sequence = *share.sequence;
  speculation_->Verified(sequence, accepted);
  Record(FlightKind::kVerified, sequence, static_cast<uint64_t>(share.drafted),
         static_cast<uint64_t>(accepted));
  // A guess that expert workers are missing for, or die of, has cost enough.
  const auto failure = failed_.lower_bound(first_drafted);
  sequence.drafts.stopped =
      failure != failed_.end() && failure->first < first_drafted + share.drafted;
}

// Returns whether it was the sequence's last.
bool Engine::EmitToken(Sequence& sequence, const SampleRow& row) {
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
  Measure(sequence, event.finish);
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

void Engine::TraceRows(const Shares& shares, int layer, std::string_view stage, const void* rows,
                       size_t row_bytes) const {
  if (options_.trace == nullptr) return;
  const auto* row = static_cast<const std::byte*>(rows);
  int32_t token = 0;  // of the batch
  for (const auto& share : shares) {
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
