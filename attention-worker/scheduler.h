#pragma once

#include <algorithm>
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

// Which tokens the next step computes. Decode and prefill are separate steps: a step that mixes a
// prompt's chunk with decoding tokens touches nearly all experts and would cost every running
// stream several steps of delay (design section 8). A prefill step may be under way while decode
// steps are picked and run; whatever leaves the scheduler then leaves that step too.
//
// Two orders. Rank, (priority, arrival), is who keeps memory: blocks are taken as sequences grow;
// when none is left, the last in rank gives its blocks up and is recomputed later. The first in
// rank gives way to nobody, so it always gets on, and so does the next when it has ended. The turn
// is who is computed first among prompts, of one priority: the least (prompt tokens that were
// computed before it came) + (its own). That is fair queueing's virtual finish time: a short one
// need not wait for all of a long one, and a flood of short ones does not starve it, for once n
// tokens have been computed nobody who comes later goes before a prompt of n.
//
// A sequence that could never fit alone is refused by Add. What the prefix cache has of a sequence
// is not computed again; blocks that are only cached are free. Pure state, no waiting: loop thread
// only.
class Scheduler {
 public:
  // `on_freed`: a block's content is worth nothing from here on; may be empty. `speculation`: null
  // for none; outlives this.
  Scheduler(SchedulerLimits limits, int32_t blocks, std::function<void(int32_t)> on_freed = {},
            PrefixCacheOptions cache = {}, Speculation* speculation = nullptr)
      : limits_(limits), blocks_(blocks, cache, std::move(on_freed)), speculation_(speculation) {}

  // Tokens of one sequence in a step's batch.
  struct Share {
    Sequence* sequence;              // null: it has left (Step::DropGone)
    int32_t first;                   // token of the batch
    int32_t tokens;                  // from sequence->computed on
    std::optional<int32_t> sample;   // index in StepBatch::sampled, if its last token is here
    int32_t drafted = 0;             // of `tokens`, the last: guesses, each of them sampled after
    int32_t computable = 0;          // of `drafted`, the first: the next one cannot be computed
    absl::Status failed = {};        // why its sequence must end
    absl::Status draft_failed = {};  // why it must if the guess that cannot be computed is right

    int32_t first_drafted() const { return first + tokens - drafted; }
  };

  // What was picked, until Clear: kept, with its memory, from step to step.
  struct Step {
    StepBatch batch;
    std::vector<Share> shares;  // in the order of the batch

    bool empty() const { return shares.empty(); }
    void Clear();
    // Takes the tokens of those that have left out of the batch; `moved(from, to, count)` is told
    // of all that change places, ascending.
    template <class Moved>
    void DropGone(const Moved& moved);

   private:
    friend class Scheduler;
    void Leave(const Sequence& sequence);
  };

  // ResourceExhausted: no free slot now. OutOfRange, InvalidArgument: never.
  absl::Status Add(SequenceSpec spec);
  // Frees everything of the sequence; false if there is none.
  bool Remove(const SequenceKey& key);
  Sequence* Find(const SequenceKey& key);

  // The next suspect whose turn it is, now offered; nullptr: nobody's, or one is on trial.
  Sequence* OfferTrial();

  // One token of every sequence that decodes, and its draft; empty: of none. The last one picked
  // was cleared.
  Step& PickDecode();
  // Prompt tokens, at most so many; likewise.
  Step& PickPrefill(int32_t tokens_max);
  Step& decode() { return decode_; }
  Step& prefill() { return prefill_; }
  // The step is done: what it computed is in the cache now, drafted tokens left out.
  void Commit(const Step& step);
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
  // By rank.
  const std::map<Rank, std::unique_ptr<Sequence>>& sequences() const { return sequences_; }
  const SchedulerLimits& limits() const { return limits_; }

 private:
  void PlanPrefill(int32_t tokens_max);
  void PickFirstInRank(int32_t tokens_max);
  void Append(Sequence& sequence, int32_t tokens, Step& step);
  void LookUp(Sequence& sequence);
  bool Reserve(Sequence& sequence, int32_t length);
  void ReserveDraft(Sequence& sequence);
  bool PreemptAfter(const Rank& rank);
  void FreeBlocks(Sequence& sequence);
  void Queue(Sequence& sequence);

  SchedulerLimits limits_;
  PrefixCache blocks_;
  Speculation* const speculation_;
  std::map<Rank, std::unique_ptr<Sequence>> sequences_;
  std::map<SequenceKey, Rank> ranks_;
  Step decode_, prefill_;
  std::vector<Sequence*> by_turn_;   // scratch of PlanPrefill
  std::vector<Sequence*> decoding_;  // scratch of PickDecode
  uint64_t next_order_ = 0;
  uint64_t prefilled_ = 0;  // prompt tokens picked so far: the clock of turns
  uint64_t preemptions_ = 0;
  uint64_t cache_query_tokens_ = 0;
  uint64_t cache_hit_tokens_ = 0;
};

template <class Moved>
void Scheduler::Step::DropGone(const Moved& moved) {
  if (std::ranges::none_of(shares, [](const Share& s) { return s.sequence == nullptr; })) return;
  int32_t from = 0, to = 0;
  batch.sampled.clear();
  for (Share& share : shares) {
    if (share.sequence != nullptr) {
      batch.MoveTokens(from, to, share.tokens);
      moved(from, to, share.tokens);
      share.first = to;
      to += share.tokens;
      if (share.sample) {
        share.sample = static_cast<int32_t>(batch.sampled.size());
        batch.sampled.push_back(to - 1);
      }
    }
    from += share.tokens;
  }
  batch.Truncate(to);
  std::erase_if(shares, [](const Share& share) { return share.sequence == nullptr; });
}

}  // namespace bottega
