#include "attention-worker/logit_edits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "attention-worker/sequence.h"

namespace bottega {
namespace {

const std::vector<int32_t> kEos = {90, 91};

Sequence Make(const std::vector<int32_t>& prompt, const std::vector<int32_t>& generated,
              LogitRules rules) {
  Sequence sequence;
  sequence.spec.prompt_ids = prompt;
  sequence.spec.rules = std::move(rules);
  sequence.tokens = prompt;
  sequence.tokens.insert(sequence.tokens.end(), generated.begin(), generated.end());
  sequence.counts.CatchUp(sequence.tokens, sequence.prompt_length());
  return sequence;
}

std::vector<int32_t> Forbidden(const Sequence& sequence, const std::vector<int32_t>& drafted = {}) {
  EditScratch scratch;
  const LogitEdits edits = EditsOf(sequence, drafted, kEos, scratch);
  return {edits.forbidden.begin(), edits.forbidden.end()};
}

std::vector<std::pair<int32_t, int32_t>> Seen(const Sequence& sequence,
                                              const std::vector<int32_t>& drafted = {}) {
  EditScratch scratch;
  std::vector<std::pair<int32_t, int32_t>> seen;
  for (const TokenCount& count : EditsOf(sequence, drafted, kEos, scratch).seen) {
    seen.emplace_back(count.token, count.generated);
  }
  return seen;
}

using Ids = std::vector<int32_t>;

TEST(LogitEdits, CountsAreOfPromptAndAnswer) {
  const LogitRules rules{.presence_penalty = 1};
  using Counts = std::vector<std::pair<int32_t, int32_t>>;
  EXPECT_EQ(Seen(Make({7, 3, 7}, {}, rules)), (Counts{{3, 0}, {7, 0}}));
  EXPECT_EQ(Seen(Make({7, 3}, {3, 5, 3}, rules)), (Counts{{3, 2}, {5, 1}, {7, 0}}));
  EXPECT_EQ(Seen(Make({7, 3}, {3, 5, 3}, {})), Counts());  // nothing penalises
}

TEST(LogitEdits, ABadWordEndsNowhereInTheAnswer) {
  const LogitRules rules{.bad_words = {{4}, {1, 2}, {1, 1, 3}}};
  EXPECT_EQ(Forbidden(Make({9}, {}, rules)), (Ids{4}));
  EXPECT_EQ(Forbidden(Make({9}, {1}, rules)), (Ids{4, 2}));
  EXPECT_EQ(Forbidden(Make({9}, {1, 1}, rules)), (Ids{4, 2, 3}));
  EXPECT_EQ(Forbidden(Make({9}, {1, 1, 5}, rules)), (Ids{4}));
  EXPECT_EQ(Forbidden(Make({1, 1}, {}, rules)), (Ids{4}));  // the prompt is no part of it
}

TEST(LogitEdits, NoEndBeforeMinTokens) {
  Sequence sequence = Make({9}, {1}, {});
  sequence.spec.min_tokens = 2;
  sequence.spec.stop_token_ids = {5};
  EXPECT_EQ(Forbidden(sequence), (Ids{90, 91, 5}));
  EXPECT_EQ(Forbidden(sequence, {1}), Ids());
}

// Grown token by token, resumed, or drafted: a function of the tokens.
TEST(LogitEdits, DraftedTokensAreAsIfTheyWereSaid) {
  std::mt19937 random(5);
  const auto some = [&](size_t count) {
    Ids ids(count);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 6);
    return ids;
  };
  for (int round = 0; round < 500; ++round) {
    const LogitRules rules{.repetition_penalty = 1.5f,
                           .bad_words = {some(1), some(2), some(3), some(3)}};
    const Ids prompt = some(1 + random() % 9), drafted = some(random() % 5);
    Ids generated = some(random() % 9);
    Sequence before = Make(prompt, generated, rules);
    before.spec.min_tokens = random() % 12;
    generated.insert(generated.end(), drafted.begin(), drafted.end());
    Sequence after = Make(prompt, generated, rules);
    after.spec.min_tokens = before.spec.min_tokens;
    EXPECT_EQ(Forbidden(before, drafted), Forbidden(after));
    EXPECT_EQ(Seen(before, drafted), Seen(after));
    before.tokens = after.tokens;
    before.counts.CatchUp(before.tokens, before.prompt_length());
    EXPECT_EQ(Seen(before), Seen(after));
  }
}

}  // namespace
}  // namespace bottega
