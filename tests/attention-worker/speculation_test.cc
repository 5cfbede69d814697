#include "attention-worker/speculation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "attention-worker/ngram_drafter.h"
#include "attention-worker/scheduler.h"
#include "attention-worker/step_times.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int32_t> DraftOf(const std::vector<int32_t>& tokens, int32_t count) {
  NgramDrafter drafter;
  drafter.Extend(tokens);
  std::vector<int32_t> draft;
  if (const auto match = drafter.Find(tokens)) {
    NgramDrafter::Copy(tokens, match->next, count, draft);
  }
  return draft;
}

TEST(NgramDrafter, GoesOnAsWhereItWasBefore) {
  EXPECT_THAT(DraftOf({1, 2, 3, 4, 5, 9, 1, 2}, 3), ElementsAre(3, 4, 5));
  EXPECT_THAT(DraftOf({1, 2, 3, 4, 9, 2}, 3), IsEmpty());  // one token is no n-gram
  EXPECT_THAT(DraftOf({1, 2}, 3), IsEmpty());
  EXPECT_THAT(DraftOf({}, 3), IsEmpty());
}

TEST(NgramDrafter, TheLongestWinsAndOfEquallyLongTheLast) {
  // "2 3" last went on with 8, "1 2 3" with 4.
  EXPECT_THAT(DraftOf({1, 2, 3, 4, 7, 2, 3, 8, 1, 2, 3}, 1), ElementsAre(4));
  EXPECT_THAT(DraftOf({2, 3, 4, 2, 3, 5, 2, 3}, 1), ElementsAre(5));
}

TEST(NgramDrafter, ARepetitionGoesOnRepeating) {
  EXPECT_THAT(DraftOf({5, 6, 5, 6}, 5), ElementsAre(5, 6, 5, 6, 5));
  EXPECT_THAT(DraftOf({7, 7, 7}, 4), ElementsAre(7, 7, 7, 7));
}

// A token at a time or all at once, in tables that grow and overflow: what is found is what went
// before, and the end is never found as its own past.
TEST(NgramDrafter, WhatIsFoundIsThere) {
  std::mt19937 random(1);
  std::vector<int32_t> tokens;
  NgramDrafter grown;
  int found = 0;
  for (int i = 0; i < 40'000; ++i) {
    tokens.push_back(static_cast<int32_t>(random() % 60));
    grown.Extend(tokens);
    const auto match = grown.Find(tokens);
    if (!match) continue;
    ++found;
    const auto size = static_cast<int32_t>(tokens.size());
    ASSERT_LT(match->next, size);
    ASSERT_TRUE(std::equal(tokens.end() - match->length, tokens.end(),
                           tokens.begin() + match->next - match->length));
  }
  EXPECT_GT(found, 30'000);
  NgramDrafter at_once;
  at_once.Extend(tokens);
  EXPECT_EQ(at_once.Find(tokens)->next, grown.Find(tokens)->next);
}

TEST(StepTimes, AreALineThroughWhatIsMeasured) {
  StepTimes times;
  EXPECT_EQ(times.At(1), 0);
  times.Observe(1, 10ms);
  EXPECT_DOUBLE_EQ(times.At(1), 0.010);
  EXPECT_DOUBLE_EQ(times.At(3), 0.020);  // half a token each, until more is known
  for (int i = 0; i < 100; ++i) {
    times.Observe(1, 9ms);
    times.Observe(1, 11ms);
    times.Observe(5, 33ms);
    times.Observe(5, 27ms);
  }
  EXPECT_NEAR(times.At(1), 0.010, 0.0002);
  EXPECT_NEAR(times.At(3), 0.020, 0.0002);
  EXPECT_NEAR(times.At(9), 0.050, 0.0005);
}

// Else a step of a cold start would stand for long.
TEST(StepTimes, ForgetAColdStart) {
  StepTimes times;
  times.Observe(5, 10s);
  times.Observe(1, 10ms);
  EXPECT_DOUBLE_EQ(times.At(1), 0.010);
}

TEST(StepTimes, FollowAndForgiveAnOutlier) {
  StepTimes times;
  for (int i = 0; i < 100; ++i) times.Observe(1, 10ms);
  times.Observe(1, 10s);
  EXPECT_LT(times.At(1), 0.012);
  for (int i = 0; i < 1000; ++i) times.Observe(1, 20ms);
  EXPECT_NEAR(times.At(1), 0.020, 0.0005);
}

// A model whose step of T tokens takes 10 ms and `more` for each token beyond the first, and one
// sequence whose drafted tokens are right with a chance.
struct Run {
  double tokens_per_ms = 0;
  double plain_tokens_per_ms = 0.1;
  uint64_t drafted = 0;
  double Gain() const { return tokens_per_ms / plain_tokens_per_ms; }
};

Run Simulate(double chance, Duration more, int steps, int sequences = 1) {
  std::mt19937 random(7);
  Speculation speculation(8);
  std::vector<std::unique_ptr<Sequence>> owned;
  std::vector<Sequence*> decoding;
  for (int i = 0; i < sequences; ++i) {
    owned.push_back(std::make_unique<Sequence>());
    Sequence& sequence = *owned.back();
    sequence.spec.prompt_ids = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5};
    sequence.tokens = sequence.spec.prompt_ids;
    sequence.computed = 9;
    sequence.spec.max_tokens = 1'000'000;
    decoding.push_back(&sequence);
  }
  double ms = 0, emitted = 0;
  for (int step = 0; step < steps; ++step) {
    speculation.Draft(decoding);
    int64_t tokens = sequences;
    for (Sequence* sequence : decoding) {
      const auto drafted = static_cast<int32_t>(sequence->drafts.tokens.size());
      tokens += drafted;
      int32_t accepted = 0;
      while (accepted < drafted && static_cast<double>(random() % 1000) < 1000 * chance) ++accepted;
      if (drafted > 0) speculation.Verified(*sequence, accepted);
      emitted += 1 + accepted;
      // The text always repeats itself, so that there always is a draft.
      for (int32_t i = 0; i <= accepted; ++i) {
        sequence->tokens.push_back(sequence->tokens[sequence->tokens.size() - 5]);
      }
      sequence->computed = sequence->length() - 1;
    }
    const Duration took = 10ms + more * (tokens - 1);
    speculation.StepTook(tokens, took);
    ms += 1000 * Seconds(took);
  }
  Run run;
  run.tokens_per_ms = emitted / ms;
  run.plain_tokens_per_ms = sequences / (1000 * Seconds(10ms + more * (sequences - 1)));
  run.drafted = speculation.stats().draft_tokens;
  return run;
}

TEST(Speculation, DraftsWhatPays) {
  EXPECT_GT(Simulate(0.95, 100us, 1000).Gain(), 4);
  EXPECT_GT(Simulate(0.8, 1ms, 1000).Gain(), 1.8);
  EXPECT_GT(Simulate(0.6, 3ms, 1000).Gain(), 1.05);
  EXPECT_GT(Simulate(0.9, 1ms, 1000, 8).Gain(), 1.3);
}

TEST(Speculation, WhatDoesNotPayCostsLittle) {
  for (const Duration more : {Duration(100us), Duration(1ms), Duration(6ms), Duration(10ms)}) {
    for (const double chance : {0.0, 0.05, 0.3}) {
      for (const int sequences : {1, 8}) {
        EXPECT_GT(Simulate(chance, more, 2000, sequences).Gain(), 0.98)
            << chance << " at " << Seconds(more) << " with " << sequences;
      }
    }
  }
  EXPECT_GT(Simulate(0.0, 6ms, 2000).drafted, 5u);  // it goes on trying
}

TEST(Speculation, LooksAgain) {
  Speculation speculation(8);
  Sequence sequence;
  sequence.spec.prompt_ids = {1, 2, 1, 2};
  sequence.tokens = sequence.spec.prompt_ids;
  sequence.spec.max_tokens = 1'000'000;
  Sequence* const decoding[] = {&sequence};
  const auto run = [&](bool right, int steps) {
    uint64_t emitted = 0;
    for (int step = 0; step < steps; ++step) {
      speculation.Draft(decoding);
      const auto drafted = static_cast<int32_t>(sequence.drafts.tokens.size());
      if (drafted > 0) speculation.Verified(sequence, right ? drafted : 0);
      emitted += 1 + (right ? drafted : 0);
      speculation.StepTook(1 + drafted, 10ms + drafted * Duration(3ms));
    }
    return emitted;
  };
  run(false, 500);
  EXPECT_GT(run(true, 500), 1500u);
}

TEST(Speculation, NeverMoreThanIsLeft) {
  Speculation speculation(8);
  Sequence sequence;
  sequence.spec.prompt_ids = {1, 2, 1, 2, 1, 2};
  sequence.tokens = sequence.spec.prompt_ids;
  Sequence* const decoding[] = {&sequence};
  const auto drafted = [&](uint32_t max_tokens) {
    sequence.spec.max_tokens = max_tokens;
    for (int64_t tokens = 1; tokens <= 9; ++tokens) speculation.StepTook(tokens, 10ms);
    speculation.Draft(decoding);
    return sequence.drafts.tokens.size();
  };
  EXPECT_EQ(drafted(100), 8u);
  EXPECT_EQ(drafted(4), 3u);
  EXPECT_EQ(drafted(1), 0u);
  sequence.trial = Trial::kRunning;
  EXPECT_EQ(drafted(100), 0u);
  sequence.trial = Trial::kNone;
  sequence.drafts.stopped = true;
  EXPECT_EQ(drafted(100), 0u);
}

// Sequences with drafts in a pool that is too small for all: nobody is preempted who would not have
// been, and what a draft took is given back.
TEST(Speculation, ADraftTakesOnlyFreeBlocks) {
  constexpr SchedulerLimits kLimits{.sequences = 8, .prefill_tokens = 64, .max_length = 200};
  Speculation speculation(8);
  Scheduler scheduler(kLimits, 5, {}, {}, &speculation);
  for (uint64_t key = 1; key <= 2; ++key) {
    SequenceSpec spec{.key = {.owner = 1, .request_key = key}};
    for (int i = 0; i < 30; ++i) spec.prompt_ids.push_back(i % 3);
    spec.max_tokens = 40;
    ASSERT_TRUE(scheduler.Add(std::move(spec)).ok());
  }
  uint64_t drafted = 0;
  for (int i = 0; i < 4; ++i) {
    Scheduler::Step& step = i == 0 ? scheduler.PickPrefill(64) : scheduler.PickDecode();
    const StepBatch& batch = step.batch;
    speculation.StepTook(batch.tokens(), 10ms);
    scheduler.Commit(step);
    int32_t at = 0;
    for (const auto& share : step.shares) {
      Sequence& sequence = *share.sequence;
      EXPECT_EQ(share.first, at);
      EXPECT_EQ(batch.positions[at], sequence.computed - (share.tokens - share.drafted));
      at += share.tokens;
      EXPECT_LE(sequence.length() + share.drafted,
                static_cast<int32_t>(sequence.blocks.size()) * kKvBlockPositions);
      drafted += static_cast<uint64_t>(share.drafted);
      if (share.drafted > 0) speculation.Verified(sequence, 0);
      sequence.tokens.push_back(sequence.tokens[sequence.tokens.size() - 3]);
      scheduler.ReleaseDraft(sequence);
      EXPECT_LE(sequence.blocks.size() * 16, static_cast<size_t>(sequence.length()) + 15);
    }
    EXPECT_EQ(at, batch.tokens());
    step.Clear();
  }
  EXPECT_GT(drafted, 0u);
  EXPECT_EQ(scheduler.preemptions(), 0u);
}

}  // namespace
}  // namespace bottega
