#include "attention-worker/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
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

// Runs a step as the engine would; every sampled sequence gets a token, ends at max_tokens.
int RunStep(Scheduler& scheduler, std::set<uint64_t>* finished = nullptr) {
  StepBatch batch;
  const auto shares = scheduler.Pick(batch);
  scheduler.Commit(shares);
  for (const auto& share : shares) {
    scheduler.Publish(*share.sequence);
    if (!share.sample) continue;
    share.sequence->tokens.push_back(7);
    if (share.sequence->generated() < share.sequence->spec.max_tokens) continue;
    if (finished != nullptr) finished->insert(share.sequence->spec.key.request_key);
    scheduler.Remove(share.sequence->spec.key);
  }
  return static_cast<int>(batch.tokens());
}

TEST(Scheduler, AnEmptyOneHasNoStep) {
  Scheduler scheduler(kLimits, 16);
  StepBatch batch;
  EXPECT_TRUE(scheduler.Pick(batch).empty());
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
    StepBatch batch;
    std::set<uint64_t> keys;
    for (const auto& share : scheduler.Pick(batch)) {
      keys.insert(share.sequence->spec.key.request_key);
    }
    return keys;
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
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 5)).ok());
  RunStep(scheduler);
  RunStep(scheduler);
  RunStep(scheduler);
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
  StepBatch batch;
  std::vector<int> tokens;
  std::vector<size_t> sampled;
  for (int i = 0; i < 3; ++i) {
    const auto shares = scheduler.Pick(batch);
    ASSERT_EQ(shares.size(), 1u);
    tokens.push_back(static_cast<int>(batch.tokens()));
    sampled.push_back(batch.sampled.size());
    EXPECT_EQ(batch.positions.front(), 32 * i);
    scheduler.Commit(shares);
  }
  EXPECT_EQ(tokens, (std::vector<int>{32, 32, 6}));
  EXPECT_EQ(sampled, (std::vector<size_t>{0, 0, 1}));
}

TEST(Scheduler, PrefillAndDecodeAreNeverInOneStepAndTakeTurns) {
  Scheduler scheduler(kLimits, 32);
  ASSERT_TRUE(scheduler.Add(Spec(1, 4, 50)).ok());
  RunStep(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(2, 100, 5)).ok());
  std::vector<int> steps;
  for (int i = 0; i < 6; ++i) steps.push_back(RunStep(scheduler));
  EXPECT_EQ(steps, (std::vector<int>{1, 32, 1, 32, 1, 32}));
}

TEST(Scheduler, SlotsAndBlocksAreWhereTheTokensAre) {
  Scheduler scheduler(kLimits, 16);
  ASSERT_TRUE(scheduler.Add(Spec(1, 20, 4)).ok());
  StepBatch batch;
  const auto shares = scheduler.Pick(batch);
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
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 5)).ok());
  RunStep(scheduler);
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
  std::set<uint64_t> finished;
  uint64_t next = 0;
  for (int step = 0; step < 20'000 && finished.size() < 60; ++step) {
    if (next < 60 && scheduler.free_slots() > 0) {
      ASSERT_TRUE(scheduler.Add(Spec(next++, 1 + random() % 100, 1 + random() % 100)).ok());
    }
    RunStep(scheduler, &finished);
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
  const auto prompt = [](uint64_t key, int length) {
    SequenceSpec spec = Spec(key, length, 2);
    std::iota(spec.prompt_ids.begin(), spec.prompt_ids.end(), 1000);
    return spec;
  };
  ASSERT_TRUE(scheduler.Add(prompt(1, 40)).ok());
  EXPECT_EQ(RunStep(scheduler), 32);
  EXPECT_EQ(RunStep(scheduler), 8);
  EXPECT_EQ(RunStep(scheduler), 1);  // and ends
  EXPECT_TRUE(scheduler.empty());
  EXPECT_EQ(scheduler.cached_blocks(), 2);
  EXPECT_EQ(scheduler.free_blocks(), 16);
  // Two blocks are the whole prompt, of which the last token is computed: only one is taken.
  ASSERT_TRUE(scheduler.Add(prompt(2, 32)).ok());
  EXPECT_EQ(RunStep(scheduler), 16);
  EXPECT_EQ(scheduler.Find({.owner = 1, .request_key = 2})->hit, 16);
  EXPECT_EQ(RunStep(scheduler), 1);
  // One token more: it is all there is to do, in a decode step.
  ASSERT_TRUE(scheduler.Add(prompt(3, 33)).ok());
  StepBatch batch;
  const auto shares = scheduler.Pick(batch);
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
  const SequenceKey running{.owner = 1, .request_key = 2};
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());  // ends, and is cached
  while (!scheduler.empty()) RunStep(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(2, 20, 100)).ok());
  RunStep(scheduler);
  ASSERT_TRUE(scheduler.Add(Spec(3, 10, 100)).ok());  // has not filled a block yet
  for (int step = 0; step < 4; ++step) RunStep(scheduler);
  ASSERT_EQ(scheduler.cached_blocks(), 2);
  lost.clear();
  scheduler.WithdrawAll();
  EXPECT_EQ(scheduler.cached_blocks(), 0);
  EXPECT_EQ(lost.size(), 2u);
  for (int step = 0; step < 30; ++step) RunStep(scheduler);
  const uint64_t before = scheduler.cache_hit_tokens();
  EXPECT_TRUE(scheduler.Remove(running));
  EXPECT_TRUE(scheduler.Remove({.owner = 1, .request_key = 3}));
  EXPECT_EQ(scheduler.free_blocks(), 24);
  EXPECT_EQ(scheduler.cached_blocks(), 0);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());
  while (!scheduler.empty()) RunStep(scheduler);
  EXPECT_EQ(scheduler.cache_hit_tokens(), before);
  ASSERT_TRUE(scheduler.Add(Spec(1, 40, 1)).ok());  // computed since: found
  while (!scheduler.empty()) RunStep(scheduler);
  EXPECT_EQ(scheduler.cache_hit_tokens(), before + 32);
}

// A replay, as after the loss of a worker or a preemption, finds generated tokens too.
TEST(Scheduler, GeneratedTokensAreCachedToo) {
  Scheduler scheduler(kLimits, 16);
  ASSERT_TRUE(scheduler.Add(Spec(1, 20, 50)).ok());
  for (int step = 0; step < 30; ++step) RunStep(scheduler);
  const Sequence& sequence = *scheduler.Find({.owner = 1, .request_key = 1});
  ASSERT_EQ(sequence.computed, 49);
  SequenceSpec replay = sequence.spec;
  replay.key.request_key = 2;
  replay.resume_tokens.assign(sequence.tokens.begin() + 20, sequence.tokens.end());
  EXPECT_TRUE(scheduler.Remove(sequence.spec.key));
  ASSERT_TRUE(scheduler.Add(std::move(replay)).ok());
  EXPECT_EQ(RunStep(scheduler), 2);  // 50 tokens, of which 48 are cached
}

TEST(Scheduler, APreemptedSequenceFindsWhatNobodyHasTakenYet) {
  const auto computed = [](bool enabled) {
    Scheduler scheduler(kLimits, 7, {}, {.enabled = enabled});  // 112 positions
    EXPECT_TRUE(scheduler.Add(Spec(1, 32, 60)).ok());
    EXPECT_TRUE(scheduler.Add(Spec(2, 64, 2)).ok());
    std::set<uint64_t> finished;
    int tokens = 0;
    while (!scheduler.empty()) tokens += RunStep(scheduler, &finished);
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
    uint64_t next = 0;
    for (int step = 0; step < 2000; ++step) {
      if (scheduler.free_slots() > 0 && random() % 3 == 0) {
        SequenceSpec spec = Spec(next++, 1 + random() % 100, 1 + random() % 60);
        std::ranges::fill(spec.prompt_ids, random() % 3);
        if (random() % 4 == 0) spec.salt = SaltOf("s");
        ASSERT_TRUE(scheduler.Add(std::move(spec)).ok());
      }
      StepBatch batch;
      const auto shares = scheduler.Pick(batch);
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
      scheduler.Commit(shares);
      for (const auto& share : shares) {
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
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_GT(scheduler.cache_hit_tokens(), 1000u);
    while (!scheduler.empty()) scheduler.Remove(scheduler.sequences().begin()->second->spec.key);
    EXPECT_EQ(scheduler.free_blocks(), 20);
  }
}

TEST(Scheduler, TheOldestIsNeverPreempted) {
  Scheduler scheduler(kLimits, 13);
  ASSERT_TRUE(scheduler.Add(Spec(1, 100, 100)).ok());
  ASSERT_TRUE(scheduler.Add(Spec(2, 100, 100)).ok());
  Sequence* oldest = scheduler.Find({.owner = 1, .request_key = 1});
  int32_t computed = 0;
  for (int step = 0; step < 60; ++step) {
    RunStep(scheduler);
    ASSERT_GE(oldest->computed, computed);
    computed = oldest->computed;
  }
  EXPECT_GT(computed, 100);
}

}  // namespace
}  // namespace bottega
