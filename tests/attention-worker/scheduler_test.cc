#include "attention-worker/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <set>

#include "core/base/reason.h"

namespace bottega {
namespace {

SequenceSpec Spec(uint64_t key, int prompt, uint32_t max_tokens) {
  SequenceSpec spec;
  spec.key = {.owner = 1, .request_key = key};
  spec.prompt_ids.assign(prompt, static_cast<int32_t>(key));
  spec.max_tokens = max_tokens;
  return spec;
}

constexpr SchedulerLimits kLimits{.sequences = 8, .prefill_tokens = 32, .max_length = 200};

// A prefill step and a decode step in turn, where both have work.
class Steps {
 public:
  explicit Steps(Scheduler& scheduler) : scheduler_(scheduler) {}

  // Until Done.
  Scheduler::Step& Pick() {
    last_was_prefill_ = !last_was_prefill_;
    Scheduler::Step* step = &PickOne();
    if (!step->empty()) return *step;
    last_was_prefill_ = !last_was_prefill_;
    return PickOne();
  }

  // As the engine would; every sampled sequence gets a token, ends at max_tokens.
  int Run(std::set<uint64_t>* finished = nullptr) {
    Scheduler::Step& step = Pick();
    const int tokens = static_cast<int>(step.batch.tokens());
    Finish(step, finished);
    return tokens;
  }
  void Finish(Scheduler::Step& step, std::set<uint64_t>* finished = nullptr) {
    scheduler_.Commit(step);
    for (const auto& share : step.shares) {
      Sequence& sequence = *share.sequence;
      scheduler_.Publish(sequence);
      if (!share.sample) continue;
      sequence.tokens.push_back(7);
      if (sequence.generated() < sequence.spec.max_tokens) continue;
      if (finished != nullptr) finished->insert(sequence.spec.key.request_key);
      scheduler_.Remove(sequence.spec.key);
    }
    step.Clear();
  }

 private:
  Scheduler::Step& PickOne() {
    return last_was_prefill_ ? scheduler_.PickPrefill(kLimits.prefill_tokens)
                             : scheduler_.PickDecode();
  }
  Scheduler& scheduler_;
  bool last_was_prefill_ = false;
};

std::vector<uint64_t> KeysOf(const Scheduler::Step& step) {
  std::vector<uint64_t> keys;
  for (const auto& share : step.shares) keys.push_back(share.sequence->spec.key.request_key);
  return keys;
}

TEST(Scheduler, AnEmptyOneHasNoStep) {
  Scheduler scheduler(kLimits, 16);
  EXPECT_TRUE(scheduler.PickDecode().empty());
  EXPECT_TRUE(scheduler.PickPrefill(32).empty());
}

// Suspects run one at a time, beside all others, and only once their gateway has said so.
TEST(Scheduler, SuspectsTakeTurns) {
  Scheduler scheduler(kLimits, 64);
  for (uint64_t key : {1, 2, 3}) {
    SequenceSpec spec = Spec(key, 10, 5);
    spec.suspect = key != 2;
    ASSERT_TRUE(scheduler.Add(std::move(spec)).ok());
  }
  const auto runs = [&] {
    Scheduler::Step& step = scheduler.PickPrefill(32);
    const std::vector<uint64_t> keys = KeysOf(step);
    step.Clear();
    return std::set<uint64_t>(keys.begin(), keys.end());
  };
  Sequence* first = scheduler.OfferTrial();
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->spec.key.request_key, 1u);
  EXPECT_EQ(scheduler.OfferTrial(), nullptr);
  EXPECT_EQ(runs(), (std::set<uint64_t>{2}));
  first->trial = Trial::kRunning;
  EXPECT_EQ(scheduler.OfferTrial(), nullptr);
  EXPECT_EQ(runs(), (std::set<uint64_t>{1, 2}));
  first->trial = Trial::kNone;
  Sequence* second = scheduler.OfferTrial();
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->spec.key.request_key, 3u);
  EXPECT_TRUE(scheduler.Remove(second->spec.key));
  EXPECT_EQ(scheduler.OfferTrial(), nullptr);
}

TEST(Scheduler, FreedBlocksAreTold) {
  std::vector<int32_t> freed;
  Scheduler scheduler(kLimits, 64, [&](int32_t block) { freed.push_back(block); },
                      {.enabled = false});
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 5)).ok());
  steps.Run();
  steps.Run();
  steps.Run();
  const SequenceKey key{.owner = 1, .request_key = 1};
  std::vector<int32_t> blocks = scheduler.Find(key)->blocks;
  EXPECT_EQ(blocks.size(), 3u);
  EXPECT_TRUE(freed.empty());
  EXPECT_TRUE(scheduler.Remove(key));
  std::ranges::sort(freed);
  EXPECT_EQ(freed, blocks);
}

TEST(Scheduler, APromptIsCutIntoChunksAndOnlyTheLastSamples) {
  Scheduler scheduler(kLimits, 16);
  ASSERT_TRUE(scheduler.Add(Spec(1, 70, 4)).ok());
  std::vector<int> tokens;
  std::vector<size_t> sampled;
  for (int i = 0; i < 3; ++i) {
    Scheduler::Step& step = scheduler.PickPrefill(32);
    ASSERT_EQ(step.shares.size(), 1u);
    tokens.push_back(static_cast<int>(step.batch.tokens()));
    sampled.push_back(step.batch.sampled.size());
    EXPECT_EQ(step.batch.positions.front(), 32 * i);
    scheduler.Commit(step);
    step.Clear();
  }
  EXPECT_EQ(tokens, (std::vector<int>{32, 32, 6}));
  EXPECT_EQ(sampled, (std::vector<size_t>{0, 0, 1}));
}

TEST(Scheduler, PrefillAndDecodeAreNeverInOneStepAndTakeTurns) {
  Scheduler scheduler(kLimits, 32);
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 4, 50)).ok());
  steps.Run();
  ASSERT_TRUE(scheduler.Add(Spec(2, 100, 5)).ok());
  std::vector<int> tokens;
  for (int i = 0; i < 6; ++i) tokens.push_back(steps.Run());
  EXPECT_EQ(tokens, (std::vector<int>{1, 32, 1, 32, 1, 32}));
}

TEST(Scheduler, SlotsAndBlocksAreWhereTheTokensAre) {
  Scheduler scheduler(kLimits, 16);
  ASSERT_TRUE(scheduler.Add(Spec(1, 20, 4)).ok());
  const auto& [batch, shares] = scheduler.PickPrefill(32);
  const std::vector<int32_t>& blocks = shares[0].sequence->blocks;
  ASSERT_EQ(blocks.size(), 2u);
  for (int32_t t = 0; t < 20; ++t) {
    EXPECT_EQ(batch.slots[t].block, blocks[t / 16]);
    EXPECT_EQ(batch.slots[t].offset, t % 16);
    EXPECT_EQ(batch.attends[t].blocks, blocks.data());
  }
}

TEST(Scheduler, RefusesWhatCouldNeverRunAndWhatCannotRunNow) {
  Scheduler scheduler(kLimits, 4);  // 64 positions
  EXPECT_EQ(ReasonOf(scheduler.Add(Spec(1, 60, 5))), Reason::kContextLengthExceeded);
  EXPECT_EQ(ReasonOf(scheduler.Add(Spec(1, 0, 5))), Reason::kInvalidValue);
  EXPECT_TRUE(scheduler.Add(Spec(1, 10, 5)).ok());
  EXPECT_EQ(ReasonOf(scheduler.Add(Spec(1, 10, 5))), Reason::kRequestIdInUse);
  for (uint64_t key = 2; key <= 8; ++key) EXPECT_TRUE(scheduler.Add(Spec(key, 10, 5)).ok());
  EXPECT_EQ(ReasonOf(scheduler.Add(Spec(9, 10, 5))), Reason::kQueueFull);
}

TEST(Scheduler, RemovingFreesEverything) {
  Scheduler scheduler(kLimits, 16);
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 5)).ok());
  steps.Run();
  EXPECT_LT(scheduler.free_blocks(), 16);
  EXPECT_TRUE(scheduler.Remove({.owner = 1, .request_key = 1}));
  EXPECT_FALSE(scheduler.Remove({.owner = 1, .request_key = 1}));
  EXPECT_EQ(scheduler.free_blocks(), 16);
  EXPECT_EQ(scheduler.free_slots(), 8);
}

// More work than the pool holds: the youngest give way, and all end; no block is lost or used
// twice.
TEST(Scheduler, ASmallPoolPreemptsTheYoungestAndEverySequenceEnds) {
  std::mt19937 random(3);
  Scheduler scheduler(kLimits, 14);  // 224 positions, one sequence may take 200
  Steps steps(scheduler);
  std::set<uint64_t> finished;
  uint64_t next = 0;
  for (int step = 0; step < 20'000 && finished.size() < 60; ++step) {
    if (next < 60 && scheduler.free_slots() > 0) {
      ASSERT_TRUE(scheduler.Add(Spec(next++, 1 + random() % 100, 1 + random() % 100)).ok());
    }
    steps.Run(&finished);
    std::set<int32_t> used;
    for (const auto& [order, sequence] : scheduler.sequences()) {
      EXPECT_GE(sequence->blocks.size() * 16, static_cast<size_t>(sequence->computed));
      for (int32_t block : sequence->blocks) EXPECT_TRUE(used.insert(block).second);
    }
    ASSERT_EQ(static_cast<int>(used.size()) + scheduler.free_blocks(), 14);
  }
  EXPECT_EQ(finished.size(), 60u);
  EXPECT_GT(scheduler.preemptions(), 0u);
}

// What was computed once is not computed again, but for the last token: its logits are wanted.
TEST(Scheduler, ACachedPrefixIsNotComputedAgain) {
  Scheduler scheduler(kLimits, 16);
  Steps steps(scheduler);
  const auto prompt = [](uint64_t key, int length) {
    SequenceSpec spec = Spec(key, length, 2);
    std::iota(spec.prompt_ids.begin(), spec.prompt_ids.end(), 1000);
    return spec;
  };
  ASSERT_TRUE(scheduler.Add(prompt(1, 40)).ok());
  EXPECT_EQ(steps.Run(), 32);
  EXPECT_EQ(steps.Run(), 8);
  EXPECT_EQ(steps.Run(), 1);  // and ends
  EXPECT_TRUE(scheduler.empty());
  EXPECT_EQ(scheduler.cached_blocks(), 2);
  EXPECT_EQ(scheduler.free_blocks(), 16);
  // Two blocks are the whole prompt, of which the last token is computed: only one is taken.
  ASSERT_TRUE(scheduler.Add(prompt(2, 32)).ok());
  EXPECT_EQ(steps.Run(), 16);
  EXPECT_EQ(scheduler.Find({.owner = 1, .request_key = 2})->hit, 16);
  EXPECT_EQ(steps.Run(), 1);
  // One token more: it is all there is to do, in a decode step.
  ASSERT_TRUE(scheduler.Add(prompt(3, 33)).ok());
  EXPECT_TRUE(scheduler.PickPrefill(32).empty());
  const auto& [batch, shares] = scheduler.PickDecode();
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_EQ(batch.positions, std::vector<int32_t>{32});
  EXPECT_EQ(shares[0].sample, 0);
  EXPECT_TRUE(shares[0].sequence->just_hit());
  EXPECT_EQ(shares[0].sequence->blocks.size(), 3u);
  EXPECT_EQ(scheduler.cache_query_tokens(), 40u + 32u + 33u);
  EXPECT_EQ(scheduler.cache_hit_tokens(), 16u + 32u);
}

// Nothing that was computed before a doubt is found after it, nor what is computed on top of it.
TEST(Scheduler, WhatIsInDoubtIsNotFound) {
  std::set<int32_t> lost;
  Scheduler scheduler(kLimits, 24, [&](int32_t block) { lost.insert(block); });
  Steps steps(scheduler);
  const SequenceKey running{.owner = 1, .request_key = 2};
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());  // ends, and is cached
  while (!scheduler.empty()) steps.Run();
  ASSERT_TRUE(scheduler.Add(Spec(2, 20, 100)).ok());
  steps.Run();
  ASSERT_TRUE(scheduler.Add(Spec(3, 10, 100)).ok());  // has not filled a block yet
  for (int step = 0; step < 4; ++step) steps.Run();
  ASSERT_EQ(scheduler.cached_blocks(), 2);
  lost.clear();
  scheduler.WithdrawAll();
  EXPECT_EQ(scheduler.cached_blocks(), 0);
  EXPECT_EQ(lost.size(), 2u);
  for (int step = 0; step < 30; ++step) steps.Run();
  const uint64_t before = scheduler.cache_hit_tokens();
  EXPECT_TRUE(scheduler.Remove(running));
  EXPECT_TRUE(scheduler.Remove({.owner = 1, .request_key = 3}));
  EXPECT_EQ(scheduler.free_blocks(), 24);
  EXPECT_EQ(scheduler.cached_blocks(), 0);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());
  while (!scheduler.empty()) steps.Run();
  EXPECT_EQ(scheduler.cache_hit_tokens(), before);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());  // computed since: found
  while (!scheduler.empty()) steps.Run();
  EXPECT_EQ(scheduler.cache_hit_tokens(), before + 32);
}

// A replay, as after the loss of a worker or a preemption, finds generated tokens too.
TEST(Scheduler, GeneratedTokensAreCachedToo) {
  Scheduler scheduler(kLimits, 16);
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 20, 50)).ok());
  for (int step = 0; step < 30; ++step) steps.Run();
  const Sequence& sequence = *scheduler.Find({.owner = 1, .request_key = 1});
  ASSERT_EQ(sequence.computed, 49);
  SequenceSpec replay = sequence.spec;
  replay.key.request_key = 2;
  replay.resume_tokens.assign(sequence.tokens.begin() + 20, sequence.tokens.end());
  EXPECT_TRUE(scheduler.Remove(sequence.spec.key));
  ASSERT_TRUE(scheduler.Add(std::move(replay)).ok());
  EXPECT_EQ(steps.Run(), 2);  // 50 tokens, of which 48 are cached
}

TEST(Scheduler, APreemptedSequenceFindsWhatNobodyHasTakenYet) {
  const auto computed = [](bool enabled) {
    Scheduler scheduler(kLimits, 7, {}, {.enabled = enabled});  // 112 positions
    Steps steps(scheduler);
    EXPECT_TRUE(scheduler.Add(Spec(1, 32, 60)).ok());
    EXPECT_TRUE(scheduler.Add(Spec(2, 64, 2)).ok());
    std::set<uint64_t> finished;
    int tokens = 0;
    while (!scheduler.empty()) tokens += steps.Run(&finished);
    EXPECT_EQ(finished, (std::set<uint64_t>{1, 2}));
    EXPECT_GT(scheduler.preemptions(), 0u);
    return tokens;
  };
  EXPECT_LT(computed(true), computed(false));
}

// Sequences that share prefixes end at any stage, well, cancelled, or found wrong: every block is
// free then, and no slot that is written is read by another.
TEST(Scheduler, EndingAtAnyStageLeavesNothing) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    Scheduler scheduler(kLimits, 20);
    Steps steps(scheduler);
    uint64_t next = 0;
    for (int step = 0; step < 2000; ++step) {
      if (scheduler.free_slots() > 0 && random() % 3 == 0) {
        SequenceSpec spec = Spec(next++, 1 + random() % 100, 1 + random() % 60);
        std::ranges::fill(spec.prompt_ids, random() % 3);
        if (random() % 4 == 0) spec.salt = SaltOf("s");
        ASSERT_TRUE(scheduler.Add(std::move(spec)).ok());
      }
      Scheduler::Step& picked = steps.Pick();
      const StepBatch& batch = picked.batch;
      std::set<std::pair<int32_t, int32_t>> written;
      for (const KvSlot& slot : batch.slots) {
        EXPECT_TRUE(written.emplace(slot.block, slot.offset).second);
      }
      for (const auto& [order, sequence] : scheduler.sequences()) {
        for (int32_t position = 0; position < sequence->computed; ++position) {
          EXPECT_FALSE(written.contains({sequence->blocks[position / 16], position % 16}))
              << "seed " << seed << " step " << step;
        }
      }
      scheduler.Commit(picked);
      for (const auto& share : picked.shares) {
        Sequence& sequence = *share.sequence;
        const bool wrong = random() % 40 == 0;
        if (wrong) {
          scheduler.Withdraw(sequence);
        } else {
          scheduler.Publish(sequence);
          if (share.sample) sequence.tokens.push_back(7);
        }
        if (wrong || random() % 40 == 0 || sequence.generated() >= sequence.spec.max_tokens) {
          EXPECT_TRUE(scheduler.Remove(sequence.spec.key));
        }
      }
      picked.Clear();
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(scheduler.cache_hit_tokens(), 1000u);
    while (!scheduler.empty()) scheduler.Remove(scheduler.sequences().begin()->second->spec.key);
    EXPECT_EQ(scheduler.free_blocks(), 20);
  }
}

TEST(Scheduler, TheOldestIsNeverPreempted) {
  Scheduler scheduler(kLimits, 13);
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 100, 100)).ok());
  ASSERT_TRUE(scheduler.Add(Spec(2, 100, 100)).ok());
  Sequence* oldest = scheduler.Find({.owner = 1, .request_key = 1});
  int32_t computed = 0;
  for (int step = 0; step < 60; ++step) {
    steps.Run();
    ASSERT_GE(oldest->computed, computed);
    computed = oldest->computed;
  }
  EXPECT_GT(computed, 100);
}

SequenceSpec Prioritised(uint64_t key, int prompt, uint32_t max_tokens, int32_t priority) {
  SequenceSpec spec = Spec(key, prompt, max_tokens);
  spec.priority = priority;
  return spec;
}

constexpr SchedulerLimits kLong{.sequences = 64, .prefill_tokens = 32, .max_length = 2000};

TEST(Scheduler, O5_AShortPromptDoesNotWaitForALongOne) {
  Scheduler scheduler(kLong, 200);
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(1, 1000, 5)).ok());
  for (int chunk = 0; chunk < 3; ++chunk) EXPECT_EQ(steps.Run(), 32);
  ASSERT_TRUE(scheduler.Add(Spec(2, 20, 5)).ok());
  Scheduler::Step& step = scheduler.PickPrefill(32);
  ASSERT_EQ(KeysOf(step), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(step.shares[0].tokens, 12);
  EXPECT_EQ(step.shares[1].tokens, 20);
  EXPECT_EQ(step.shares[1].sample, 0);
}

TEST(Scheduler, O5_AFloodOfShortPromptsDoesNotStarveALongOne) {
  Scheduler scheduler(kLong, 400);
  const SequenceKey key{.owner = 1, .request_key = 0};
  ASSERT_TRUE(scheduler.Add(Spec(0, 640, 5)).ok());
  Steps steps(scheduler);
  constexpr int kWaiting = 62;  // when 640 tokens have been computed
  int prefills = 0;
  for (uint64_t next = 1; !scheduler.Find(key)->decoding(); ++next) {
    for (uint64_t i : {0, 1}) {  // twice what can be computed
      if (scheduler.free_slots() > 0) {
        ASSERT_TRUE(scheduler.Add(Spec(next * 10 + i, 32, 1)).ok());
      }
    }
    Scheduler::Step& step = scheduler.PickPrefill(32);
    steps.Finish(step);
    ASSERT_LE(++prefills, 2 * 640 / 32 + kWaiting);
  }
}

TEST(Scheduler, TheLeastPriorityValueIsComputedFirst) {
  Scheduler scheduler(kLong, 200);
  ASSERT_TRUE(scheduler.Add(Prioritised(1, 20, 5, 0)).ok());
  ASSERT_TRUE(scheduler.Add(Prioritised(2, 100, 5, -1)).ok());
  ASSERT_TRUE(scheduler.Add(Prioritised(3, 10, 5, 7)).ok());
  std::vector<std::vector<uint64_t>> keys;
  Steps steps(scheduler);
  for (int chunk = 0; chunk < 5; ++chunk) {
    Scheduler::Step& step = scheduler.PickPrefill(32);
    keys.push_back(KeysOf(step));
    steps.Finish(step);
  }
  EXPECT_EQ(keys, (std::vector<std::vector<uint64_t>>{{2}, {2}, {2}, {2, 1, 3}, {3}}));
}

TEST(Scheduler, O3_TheLowestPriorityGivesWayFirstThenTheYoungest) {
  Scheduler scheduler(kLong, 6);  // 96 positions
  Steps steps(scheduler);
  ASSERT_TRUE(scheduler.Add(Prioritised(1, 30, 60, 1)).ok());  // the oldest, and of no priority
  ASSERT_TRUE(scheduler.Add(Prioritised(2, 14, 60, 0)).ok());
  ASSERT_TRUE(scheduler.Add(Prioritised(3, 14, 60, 0)).ok());
  const auto blocks = [&](uint64_t key) {
    return scheduler.Find({.owner = 1, .request_key = key})->blocks.size();
  };
  std::vector<uint64_t> gave_way;
  std::set<uint64_t> finished;
  while (finished.empty()) {
    std::set<uint64_t> held;
    for (uint64_t key : {1, 2, 3}) {
      if (blocks(key) > 0) held.insert(key);
    }
    steps.Run(&finished);
    for (uint64_t key : held) {
      if (!finished.contains(key) && blocks(key) == 0) gave_way.push_back(key);
    }
  }
  EXPECT_EQ(finished, std::set<uint64_t>{2});
  ASSERT_GE(gave_way.size(), 2u);
  EXPECT_EQ(gave_way[0], 1u);
  EXPECT_EQ(gave_way.back(), 3u);
}

// Prefill steps are under way for some decode steps, and sequences are preempted out of them: the
// first in rank never loses what it has, and all end.
TEST(Scheduler, O3_EverySequenceOfATinyPoolEndsWhateverItsPriority) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    Scheduler scheduler(kLimits, 14);
    Steps steps(scheduler);
    std::set<uint64_t> finished;
    uint64_t next = 0;
    std::pair<Rank, int32_t> first;  // and how far it was
    int left = 0;
    for (int round = 0; round < 20'000 && finished.size() < 60; ++round) {
      while (next < 60 && scheduler.free_slots() > 0) {
        ASSERT_TRUE(scheduler
                        .Add(Prioritised(next++, 1 + random() % 100, 1 + random() % 100,
                                         static_cast<int32_t>(random() % 3)))
                        .ok());
      }
      Scheduler::Step& prefill = scheduler.PickPrefill(32);
      const size_t picked = prefill.shares.size();
      for (size_t decodes = random() % 20; decodes > 0; --decodes) {
        steps.Finish(scheduler.PickDecode(), &finished);
      }
      prefill.DropGone([](int64_t, int64_t, int64_t) {});
      left += static_cast<int>(picked - prefill.shares.size());
      steps.Finish(prefill, &finished);
      if (scheduler.empty()) continue;
      const auto& [rank, sequence] = *scheduler.sequences().begin();
      if (rank == first.first) {
        ASSERT_GE(sequence->computed, first.second) << "seed " << seed;
      }
      first = {rank, sequence->computed};
    }
    EXPECT_EQ(finished.size(), 60u) << "seed " << seed;
    EXPECT_GT(left, 0);
    EXPECT_EQ(scheduler.free_blocks(), 14);
  }
}

// Turns are not ranks: B is computed first, but the pool is A's, which came first and found most of
// its prompt in the cache. A goes on, though not a token of its is planned.
TEST(Scheduler, O3_WhereNobodyWhoseTurnItIsGetsBlocksTheFirstInRankGoesOn) {
  Scheduler scheduler({.sequences = 8, .prefill_tokens = 64, .max_length = 112}, 7);
  Steps steps(scheduler);
  std::set<uint64_t> finished;
  const auto of_fives = [](uint64_t key, int prompt, uint32_t max_tokens) {
    SequenceSpec spec = Spec(key, prompt, max_tokens);
    spec.prompt_ids.assign(prompt, 5);
    return spec;
  };
  ASSERT_TRUE(scheduler.Add(of_fives(1, 85, 1)).ok());
  while (!scheduler.empty()) steps.Run(&finished);
  constexpr uint64_t kA = 2, kB = 3;
  ASSERT_TRUE(scheduler.Add(of_fives(kA, 105, 7)).ok());
  ASSERT_TRUE(scheduler.Add(Spec(kB, 40, 7)).ok());
  Scheduler::Step& step = scheduler.PickPrefill(56);  // 40 for B, which gets one block of three
  EXPECT_EQ(KeysOf(step), std::vector<uint64_t>{kA});
  steps.Finish(step, &finished);
  const Sequence& a = *scheduler.Find({.owner = 1, .request_key = kA});
  ASSERT_EQ(a.computed, 96);
  ASSERT_EQ(scheduler.free_blocks(), 0);
  for (int round = 0; round < 40 && !scheduler.empty(); ++round) {
    steps.Finish(scheduler.PickPrefill(40), &finished);
    steps.Finish(scheduler.PickDecode(), &finished);
  }
  EXPECT_EQ(finished, (std::set<uint64_t>{1, kA, kB}));
}

TEST(Scheduler, WhoLeavesAPrefillStepTakesItsTokensAlong) {
  Scheduler scheduler(kLimits, 16, {}, {.enabled = false});
  for (uint64_t key : {1, 2, 3}) ASSERT_TRUE(scheduler.Add(Spec(key, 8, 5)).ok());
  Scheduler::Step& step = scheduler.PickPrefill(32);
  ASSERT_EQ(step.batch.sampled, (std::vector<int32_t>{7, 15, 23}));
  const StepBatch before = step.batch;
  EXPECT_TRUE(scheduler.Remove({.owner = 1, .request_key = 2}));
  EXPECT_EQ(step.shares[1].sequence, nullptr);
  std::vector<std::array<int64_t, 3>> moves;
  step.DropGone([&](int64_t from, int64_t to, int64_t count) {
    moves.push_back({from, to, count});
  });
  EXPECT_EQ(KeysOf(step), (std::vector<uint64_t>{1, 3}));
  EXPECT_EQ(moves, (std::vector<std::array<int64_t, 3>>{{0, 0, 8}, {16, 8, 8}}));
  ASSERT_EQ(step.batch.tokens(), 16);
  EXPECT_EQ(step.batch.sampled, (std::vector<int32_t>{7, 15}));
  EXPECT_EQ(step.shares[1].sample, 1);
  for (size_t token = 0; token < 8; ++token) {
    EXPECT_EQ(step.batch.ids[8 + token], 3);
    EXPECT_EQ(step.batch.slots[8 + token].block, before.slots[16 + token].block);
    EXPECT_EQ(step.batch.attends[8 + token].blocks, before.attends[16 + token].blocks);
  }
  for (uint64_t key : {1, 3}) EXPECT_TRUE(scheduler.Remove({.owner = 1, .request_key = key}));
  step.DropGone([](int64_t, int64_t, int64_t) {});
  EXPECT_TRUE(step.empty());
  EXPECT_EQ(step.batch.tokens(), 0);
}

}  // namespace
}  // namespace bottega
