#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "attention-worker/prefix_cache.h"
#include "attention-worker/sequence.h"
#include "attention-worker/speculation.h"
#include "core/model/attention_block.h"

namespace bottega {

struct SchedulerLimits {
  int32_t sequences = 64;        // live at once
  int32_t prefill_tokens = 512;  // in one step
  int32_t max_length = 0;        // prompt + generated, of one sequence
};

// Which tokens the next step computes. Decode and prefill are separate steps, taken in turn when
// both have work: a step that mixes a prompt's chunk with decoding tokens touches nearly all
// experts and would cost every running stream several steps of delay (design section 8).
//
// Blocks are taken as sequences grow; when none is left, the youngest sequence gives its blocks up
// and is recomputed later, so the oldest always gets on. A sequence that could never fit alone is
// refused by Add. What the prefix cache has of a sequence is not computed again; blocks that are
// only cached are free. Pure state, no waiting: loop thread only.
class Scheduler {
 public:
  // `on_freed`: a block's content is worth nothing from here on; may be empty. `speculation`: null
  // for none; outlives this.
  Scheduler(SchedulerLimits limits, int32_t blocks, std::function<void(int32_t)> on_freed = {},
            PrefixCacheOptions cache = {}, Speculation* speculation = nullptr)
      : limits_(limits), blocks_(blocks, cache, std::move(on_freed)), speculation_(speculation) {}

  // Tokens of one sequence in a step's batch.
  struct Share {
    Sequence* sequence;
    int32_t tokens;                 // from sequence->computed on
    std::optional<int32_t> sample;  // index in StepBatch::sampled, if its last token is here
    int32_t drafted = 0;  // of `tokens`, the last: guesses, each of them sampled after as well
  };

  // ResourceExhausted: no free slot now. OutOfRange, InvalidArgument: never.
  absl::Status Add(SequenceSpec spec);
  // Frees everything of the sequence; false if there is none.
  bool Remove(const SequenceKey& key);
  Sequence* Find(const SequenceKey& key);

  // The next suspect whose turn it is, now offered; nullptr: nobody's, or one is on trial.
  Sequence* OfferTrial();

  // Fills `batch` and returns whose tokens are in it; empty: nothing to do.
  std::vector<Share> Pick(StepBatch& batch);
  // The step is done: what it computed is in the cache now, drafted tokens left out.
  void Commit(const std::vector<Share>& shares);
  // The step's draft has been looked at: blocks that only rejected tokens needed are free again.
  void ReleaseDraft(Sequence& sequence);
  // What is computed of it is right: others may use its full blocks.
  void Publish(Sequence& sequence);
  // It may not be: nobody finds what it holds any more.
  void Withdraw(const Sequence& sequence) { blocks_.Withdraw(sequence.blocks); }
  // Whatever was computed until now may be wrong: nobody else gets to see it.
  void WithdrawAll();

  bool empty() const { return sequences_.empty(); }
  int32_t free_slots() const { return limits_.sequences - static_cast<int32_t>(sequences_.size()); }
  int32_t free_blocks() const { return blocks_.free(); }      // cached ones are
  int32_t cached_blocks() const { return blocks_.cached(); }  // only cached
  int32_t total_blocks() const { return blocks_.total(); }
  const Speculation* speculation() const { return speculation_; }  // null: none
  uint64_t preemptions() const { return preemptions_; }
  uint64_t cache_query_tokens() const { return cache_query_tokens_; }  // looked up
  uint64_t cache_hit_tokens() const { return cache_hit_tokens_; }      // and found
  const std::map<uint64_t, std::unique_ptr<Sequence>>& sequences() const { return sequences_; }
  const SchedulerLimits& limits() const { return limits_; }

 private:
  std::vector<Share> PickDecode(StepBatch& batch);
  std::vector<Share> PickPrefill(StepBatch& batch);
  void Append(Sequence& sequence, int32_t tokens, StepBatch& batch, std::vector<Share>& shares);
  void LookUp(Sequence& sequence);
  bool Reserve(Sequence& sequence, int32_t length);
  void ReserveDraft(Sequence& sequence);
  bool PreemptYoungerThan(uint64_t order);
  void FreeBlocks(Sequence& sequence);

  SchedulerLimits limits_;
  PrefixCache blocks_;
  Speculation* const speculation_;
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;  // by order of arrival
  std::map<SequenceKey, uint64_t> orders_;
  uint64_t next_order_ = 0;
  uint64_t preemptions_ = 0;
  uint64_t cache_query_tokens_ = 0;
  uint64_t cache_hit_tokens_ = 0;
  bool last_was_prefill_ = false;
};

}  // namespace bottega
