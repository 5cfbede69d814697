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
  CatchUp(sequence);
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

// Whether only the end of the thought may come next.
bool MustEnd(const Sequence& sequence, const Ids& drafted = {}) {
  EditScratch scratch;
  const LogitEdits edits = EditsOf(sequence, drafted, kEos, scratch);
  return Ids(edits.allowed.begin(), edits.allowed.end()) == Ids{2};
}

TEST(LogitEdits, AThoughtEndsAtItsBudget) {
  const LogitRules rules{.thinking = ThinkingBudget{.tokens = 3, .close_id = 2, .open_id = 1}};
  EXPECT_FALSE(MustEnd(Make({1, 7, 7, 7, 7}, {}, rules)));  // not in the prompt
  EXPECT_FALSE(MustEnd(Make({9}, {7, 7, 7, 7}, rules)));    // nothing was thought
  EXPECT_FALSE(MustEnd(Make({9}, {7, 1, 7, 7}, rules)));
  EXPECT_TRUE(MustEnd(Make({9}, {7, 1, 7, 7, 7}, rules)));
  EXPECT_TRUE(MustEnd(Make({9}, {7, 1}, rules), {7, 7, 7}));
  EXPECT_TRUE(MustEnd(Make({9}, {1, 1, 7, 1}, rules)));  // in a thought its opening is a token
  EXPECT_FALSE(MustEnd(Make({9}, {1, 7, 7, 7, 2}, rules)));
  EXPECT_FALSE(MustEnd(Make({9}, {1, 7, 2, 1, 7, 7, 7, 7}, rules)));  // one thought an answer

  const LogitRules begun{.thinking = ThinkingBudget{.tokens = 2, .close_id = 2}};
  EXPECT_FALSE(MustEnd(Make({9}, {7}, begun)));
  EXPECT_TRUE(MustEnd(Make({9}, {7, 7}, begun)));
  EXPECT_FALSE(MustEnd(Make({9}, {2, 7, 7}, begun)));
  const LogitRules none{.thinking = ThinkingBudget{.tokens = 0, .close_id = 2}};
  EXPECT_TRUE(MustEnd(Make({9}, {}, none)));
  EXPECT_FALSE(MustEnd(Make({9}, {2}, none)));
}

// Whatever else is asked for: or the thought would go on.
TEST(LogitEdits, TheEndOfAThoughtIsAllowedWhateverElseIsNot) {
  LogitRules rules{.presence_penalty = 1,
                   .allowed_ids = {5, 6},
                   .bad_words = {{2}},
                   .thinking = ThinkingBudget{.tokens = 0, .close_id = 2}};
  rules.bias.push_back({2, -100});
  EditScratch scratch;
  const Sequence sequence = Make({9}, {}, rules);
  const LogitEdits edits = EditsOf(sequence, {}, kEos, scratch);
  EXPECT_EQ(Ids(edits.allowed.begin(), edits.allowed.end()), Ids{2});
  EXPECT_TRUE(edits.forbidden.empty());
  EXPECT_TRUE(edits.bias.empty());
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
                           .bad_words = {some(1), some(2), some(3), some(3)},
                           .thinking = ThinkingBudget{.tokens = 3, .close_id = 2, .open_id = 1}};
    const Ids prompt = some(1 + random() % 9), drafted = some(random() % 5);
    Ids generated = some(random() % 9);
    Sequence before = Make(prompt, generated, rules);
    before.spec.min_tokens = random() % 12;
    generated.insert(generated.end(), drafted.begin(), drafted.end());
    Sequence after = Make(prompt, generated, rules);
    after.spec.min_tokens = before.spec.min_tokens;
    EXPECT_EQ(MustEnd(before, drafted), MustEnd(after));
    EXPECT_EQ(Forbidden(before, drafted), Forbidden(after));
    EXPECT_EQ(Seen(before, drafted), Seen(after));
    before.tokens = after.tokens;
    CatchUp(before);
    EXPECT_EQ(Seen(before), Seen(after));
  }
}

}  // namespace
}  // namespace bottega
