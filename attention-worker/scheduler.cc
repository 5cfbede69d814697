#include "attention-worker/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
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
  if (orders_.contains(spec.key)) {
    return MakeError(Reason::kRequestIdInUse, "this request key is live already");
  }
  if (free_slots() <= 0) return MakeError(Reason::kQueueFull, "no free slot");
  auto sequence = std::make_unique<Sequence>();
  sequence->order = next_order_++;
  sequence->tokens = spec.prompt_ids;
  sequence->tokens.insert(sequence->tokens.end(), spec.resume_tokens.begin(),
                          spec.resume_tokens.end());
  if (spec.suspect) sequence->trial = Trial::kQueued;
  sequence->replays = !spec.resume_tokens.empty();
  sequence->spec = std::move(spec);
  orders_[sequence->spec.key] = sequence->order;
  sequences_.emplace(sequence->order, std::move(sequence));
  return absl::OkStatus();
}

bool Scheduler::Remove(const SequenceKey& key) {
  auto it = orders_.find(key);
  if (it == orders_.end()) return false;
  FreeBlocks(*sequences_.at(it->second));
  sequences_.erase(it->second);
  orders_.erase(it);
  return true;
}

Sequence* Scheduler::Find(const SequenceKey& key) {
  auto it = orders_.find(key);
  return it == orders_.end() ? nullptr : sequences_.at(it->second).get();
}

Sequence* Scheduler::OfferTrial() {
  Sequence* next = nullptr;
  for (auto& [order, sequence] : sequences_) {
    if (sequence->trial == Trial::kOffered || sequence->trial == Trial::kRunning) return nullptr;
    if (next == nullptr && sequence->trial == Trial::kQueued) next = sequence.get();
  }
  if (next != nullptr) next->trial = Trial::kOffered;
  return next;
}

std::vector<Scheduler::Share> Scheduler::Pick(StepBatch& batch) {
  std::vector<Share> shares;
  for (int attempt = 0; attempt < 2 && shares.empty(); ++attempt) {
    batch.Clear();
    last_was_prefill_ = !last_was_prefill_;
    shares = last_was_prefill_ ? PickPrefill(batch) : PickDecode(batch);
  }
  return shares;
}

std::vector<Scheduler::Share> Scheduler::PickDecode(StepBatch& batch) {
  std::vector<Sequence*> decoding;
  for (auto& [order, sequence] : sequences_) {
    // A preemption below takes only younger sequences, which come later in this walk.
    if (sequence->may_run() && sequence->decoding() && Reserve(*sequence, sequence->length())) {
      decoding.push_back(sequence.get());
    }
  }
  if (speculation_ != nullptr) speculation_->Draft(decoding);
  std::vector<Share> shares;
  for (Sequence* sequence : decoding) {
    ReserveDraft(*sequence);
    Append(*sequence, 1, batch, shares);
  }
  return shares;
}

std::vector<Scheduler::Share> Scheduler::PickPrefill(StepBatch& batch) {
  std::vector<Share> shares;
  for (auto& [order, sequence] : sequences_) {
    if (sequence->decoding() || !sequence->may_run()) continue;
    const int32_t room = limits_.prefill_tokens - static_cast<int32_t>(batch.tokens());
    if (room <= 0) break;
    LookUp(*sequence);
    if (sequence->decoding()) continue;  // all else was cached
    const int32_t tokens = std::min(room, sequence->length() - sequence->computed);
    if (!Reserve(*sequence, sequence->computed + tokens)) break;
    Append(*sequence, tokens, batch, shares);
  }
  return shares;
}

void Scheduler::Append(Sequence& sequence, int32_t tokens, StepBatch& batch,
                       std::vector<Share>& shares) {
  const std::vector<int32_t>& draft = sequence.drafts.tokens;  // none in prefill
  const auto drafted = static_cast<int32_t>(draft.size());
  const int32_t end = sequence.computed + tokens;
  for (int32_t position = sequence.computed; position < end + drafted; ++position) {
    batch.ids.push_back(position < end ? sequence.tokens[position] : draft[position - end]);
    batch.positions.push_back(position);
    batch.slots.push_back({.block = sequence.blocks[position / kKvBlockPositions],
                           .offset = position % kKvBlockPositions});
    batch.attends.push_back({.position = position, .blocks = sequence.blocks.data()});
  }
  Share share{.sequence = &sequence,
              .tokens = tokens + drafted,
              .sample = std::nullopt,
              .drafted = drafted};
  if (end == sequence.length()) {
    share.sample = static_cast<int32_t>(batch.sampled.size());
    for (int32_t back = drafted + 1; back > 0; --back) {
      batch.sampled.push_back(static_cast<int32_t>(batch.tokens()) - back);
    }
  }
  shares.push_back(share);
}

void Scheduler::Commit(const std::vector<Share>& shares) {
  for (const Share& share : shares) share.sequence->computed += share.tokens - share.drafted;
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
  for (auto& [order, sequence] : sequences_) sequence->doubted = !sequence->blocks.empty();
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
    } else if (!PreemptYoungerThan(sequence.order)) {
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

bool Scheduler::PreemptYoungerThan(uint64_t order) {
  for (auto it = sequences_.rbegin(); it != sequences_.rend() && it->first > order; ++it) {
    if (it->second->blocks.empty()) continue;
    FreeBlocks(*it->second);
    it->second->replays = true;
    ++preemptions_;
    return true;
  }
  return false;
}

void Scheduler::FreeBlocks(Sequence& sequence) {
  blocks_.Release(sequence.blocks);
  sequence.blocks.clear();
  sequence.published = sequence.computed = sequence.hit = 0;
  sequence.looked_up = sequence.doubted = false;
}

}  // namespace bottega
