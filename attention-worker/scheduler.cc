#include "attention-worker/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "core/base/check.h"
#include "core/base/reason.h"

namespace bottega {
namespace {

int32_t BlocksFor(int32_t length) { return (length + kKvBlockPositions - 1) / kKvBlockPositions; }

}  // namespace

absl::Status Scheduler::Add(SequenceSpec spec) {
  const int64_t length = static_cast<int64_t>(spec.prompt_ids.size()) + spec.max_tokens;
  if (spec.prompt_ids.empty()) return MakeError(Reason::kInvalidValue, "the prompt is empty");
  if (spec.resume_tokens.size() >= spec.max_tokens) {
    return MakeError(Reason::kInvalidValue, "nothing is left to generate");
  }
  if (length > limits_.max_length || BlocksFor(static_cast<int32_t>(length)) > blocks_.total()) {
    return MakeError(Reason::kContextLengthExceeded,
                     fmt::format("{} prompt tokens and {} to generate exceed the context of {}",
                                 spec.prompt_ids.size(), spec.max_tokens, limits_.max_length));
  }
  if (ranks_.contains(spec.key)) {
    return MakeError(Reason::kRequestIdInUse, "this request key is live already");
  }
  if (free_slots() <= 0) return MakeError(Reason::kQueueFull, "no free slot");
  auto sequence = std::make_unique<Sequence>();
  sequence->rank = {.priority = spec.priority, .order = next_order_++};
  // Once and for all: a step allocates nothing.
  sequence->tokens.reserve(static_cast<size_t>(length));
  sequence->blocks.reserve(static_cast<size_t>(BlocksFor(static_cast<int32_t>(length))));
  sequence->tokens = spec.prompt_ids;
  sequence->tokens.insert(sequence->tokens.end(), spec.resume_tokens.begin(),
                          spec.resume_tokens.end());
  if (spec.suspect) sequence->trial = Trial::kQueued;
  sequence->replays = !spec.resume_tokens.empty();
  sequence->spec = std::move(spec);
  Queue(*sequence);
  ranks_[sequence->spec.key] = sequence->rank;
  sequences_.emplace(sequence->rank, std::move(sequence));
  return absl::OkStatus();
}

bool Scheduler::Remove(const SequenceKey& key) {
  auto it = ranks_.find(key);
  if (it == ranks_.end()) return false;
  FreeBlocks(*sequences_.at(it->second));
  sequences_.erase(it->second);
  ranks_.erase(it);
  return true;
}

Sequence* Scheduler::Find(const SequenceKey& key) {
  auto it = ranks_.find(key);
  return it == ranks_.end() ? nullptr : sequences_.at(it->second).get();
}

// Behind what is waiting, by as much as it is long.
void Scheduler::Queue(Sequence& sequence) {
  sequence.turn = prefilled_ + static_cast<uint64_t>(sequence.length());
}

Sequence* Scheduler::OfferTrial() {
  Sequence* next = nullptr;
  for (auto& [rank, sequence] : sequences_) {
    if (sequence->trial == Trial::kOffered || sequence->trial == Trial::kRunning) return nullptr;
    if (next == nullptr && sequence->trial == Trial::kQueued) next = sequence.get();
  }
  if (next != nullptr) next->trial = Trial::kOffered;
  return next;
}

void Scheduler::Step::Clear() {
  batch.Clear();
  shares.clear();
}

void Scheduler::Step::Leave(const Sequence& sequence) {
  for (Share& share : shares) {
    if (share.sequence == &sequence) share.sequence = nullptr;
  }
}

Scheduler::Step& Scheduler::PickDecode() {
  CHECK(decode_.empty());
  decoding_.clear();
  for (auto& [rank, sequence] : sequences_) {
    // A preemption below takes only those after it in rank, which come later in this walk.
    if (sequence->may_run() && sequence->decoding() && Reserve(*sequence, sequence->length())) {
      decoding_.push_back(sequence.get());
    }
  }
  if (speculation_ != nullptr) speculation_->Draft(decoding_);
  for (Sequence* sequence : decoding_) {
    ReserveDraft(*sequence);
    Append(*sequence, 1, decode_);
  }
  return decode_;
}

Scheduler::Step& Scheduler::PickPrefill(int32_t tokens_max) {
  CHECK(prefill_.empty());
  PlanPrefill(tokens_max);
  for (auto& [rank, sequence] : sequences_) {  // likewise
    if (sequence->planned == 0) continue;
    if (!Reserve(*sequence, sequence->computed + sequence->planned)) break;
    Append(*sequence, sequence->planned, prefill_);
  }
  if (prefill_.empty()) PickFirstInRank(tokens_max);
  prefilled_ += static_cast<uint64_t>(prefill_.batch.tokens());
  return prefill_;
}

// Who gets how much of the next prefill step, if there are blocks for it.
void Scheduler::PlanPrefill(int32_t tokens_max) {
  by_turn_.clear();
  for (auto& [rank, sequence] : sequences_) {
    sequence->planned = 0;
    if (sequence->may_run() && !sequence->decoding()) by_turn_.push_back(sequence.get());
  }
  std::ranges::sort(by_turn_, {}, [](const Sequence* sequence) {
    return std::tuple(sequence->rank.priority, sequence->turn, sequence->rank.order);
  });
  int32_t room = std::min(tokens_max, limits_.prefill_tokens);
  for (Sequence* sequence : by_turn_) {
    if (room == 0) break;
    LookUp(*sequence);
    if (sequence->decoding()) continue;  // all else was cached
    sequence->planned = std::min(room, sequence->length() - sequence->computed);
    room -= sequence->planned;
  }
}

// Memory goes by rank and turns do not: where nobody whose turn it is got blocks, the first in rank
// that waits does. It gives way only to those that decode, so somebody always gets on.
void Scheduler::PickFirstInRank(int32_t tokens_max) {
  const auto waits = [](const auto& entry) {
    return entry.second->may_run() && !entry.second->decoding();
  };
  const auto first = std::ranges::find_if(sequences_, waits);
  if (first == sequences_.end()) return;
  Sequence& sequence = *first->second;
  LookUp(sequence);
  if (sequence.decoding()) return;  // all else was cached
  const int32_t tokens =
      std::min({tokens_max, limits_.prefill_tokens, sequence.length() - sequence.computed});
  if (Reserve(sequence, sequence.computed + tokens)) Append(sequence, tokens, prefill_);
}

void Scheduler::Append(Sequence& sequence, int32_t tokens, Step& step) {
  StepBatch& batch = step.batch;
  const std::vector<int32_t>& draft = sequence.drafts.tokens;  // none in prefill
  const auto drafted = static_cast<int32_t>(draft.size());
  const auto first = static_cast<int32_t>(batch.tokens());
  const int32_t end = sequence.computed + tokens;
  for (int32_t position = sequence.computed; position < end + drafted; ++position) {
    batch.ids.push_back(position < end ? sequence.tokens[position] : draft[position - end]);
    batch.positions.push_back(position);
    batch.slots.push_back({.block = sequence.blocks[position / kKvBlockPositions],
                           .offset = position % kKvBlockPositions});
    batch.attends.push_back({.position = position, .blocks = sequence.blocks.data()});
  }
  Share share{.sequence = &sequence,
              .first = first,
              .tokens = tokens + drafted,
              .sample = std::nullopt,
              .drafted = drafted,
              .computable = drafted};
  if (end == sequence.length()) {
    share.sample = static_cast<int32_t>(batch.sampled.size());
    for (int32_t back = drafted + 1; back > 0; --back) {
      batch.sampled.push_back(static_cast<int32_t>(batch.tokens()) - back);
    }
  }
  step.shares.push_back(std::move(share));
}

void Scheduler::Commit(const Step& step) {
  for (const Share& share : step.shares) share.sequence->computed += share.tokens - share.drafted;
}

void Scheduler::ReleaseDraft(Sequence& sequence) {
  sequence.drafts.tokens.clear();
  const auto needed = static_cast<size_t>(BlocksFor(sequence.length()));
  if (sequence.blocks.size() <= needed) return;
  blocks_.Release(absl::MakeConstSpan(sequence.blocks).subspan(needed));
  sequence.blocks.resize(needed);
}

void Scheduler::Publish(Sequence& sequence) {
  if (sequence.doubted) return;
  sequence.published = blocks_.Publish(
      sequence.spec.salt, absl::MakeConstSpan(sequence.tokens).first(sequence.computed),
      sequence.published, sequence.blocks);
}

void Scheduler::WithdrawAll() {
  blocks_.WithdrawAll();
  for (auto& [rank, sequence] : sequences_) sequence->doubted = !sequence->blocks.empty();
}

// Before its first step, and again after a preemption. The last token is computed in any case: its
// logits are wanted.
void Scheduler::LookUp(Sequence& sequence) {
  if (!sequence.blocks.empty() || !blocks_.enabled()) return;
  const auto tokens = absl::MakeConstSpan(sequence.tokens).first(sequence.length() - 1);
  blocks_.Match(sequence.spec.salt, tokens, sequence.blocks);
  sequence.published = static_cast<int32_t>(sequence.blocks.size());
  sequence.computed = sequence.hit = sequence.published * kKvBlockPositions;
  if (!std::exchange(sequence.looked_up, true)) cache_query_tokens_ += sequence.tokens.size();
  cache_hit_tokens_ += static_cast<uint64_t>(sequence.hit);
}

bool Scheduler::Reserve(Sequence& sequence, int32_t length) {
  while (static_cast<int32_t>(sequence.blocks.size()) < BlocksFor(length)) {
    std::optional<int32_t> block = blocks_.Take();
    if (block) {
      sequence.blocks.push_back(*block);
    } else if (!PreemptAfter(sequence.rank)) {
      return false;
    }
  }
  return true;
}

// Nobody gives way for a guess: the draft is cut to what fits into free blocks.
void Scheduler::ReserveDraft(Sequence& sequence) {
  std::vector<int32_t>& draft = sequence.drafts.tokens;
  const auto needed =
      static_cast<size_t>(BlocksFor(sequence.length() + static_cast<int32_t>(draft.size())));
  while (sequence.blocks.size() < needed) {
    const std::optional<int32_t> block = blocks_.Take();
    if (!block) break;
    sequence.blocks.push_back(*block);
  }
  const auto held = static_cast<int32_t>(sequence.blocks.size()) * kKvBlockPositions;
  draft.resize(std::min(draft.size(), static_cast<size_t>(held - sequence.length())));
}

bool Scheduler::PreemptAfter(const Rank& rank) {
  for (auto it = sequences_.rbegin(); it != sequences_.rend() && it->first > rank; ++it) {
    if (it->second->blocks.empty()) continue;
    FreeBlocks(*it->second);
    it->second->replays = true;
    Queue(*it->second);
    ++preemptions_;
    return true;
  }
  return false;
}

void Scheduler::FreeBlocks(Sequence& sequence) {
  decode_.Leave(sequence);
  prefill_.Leave(sequence);
  blocks_.Release(sequence.blocks);
  sequence.blocks.clear();
  sequence.published = sequence.computed = sequence.hit = sequence.planned = 0;
  sequence.looked_up = sequence.doubted = false;
}

}  // namespace bottega
