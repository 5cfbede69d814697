#include "attention-worker/ops/serve.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/base/limits.h"
#include "core/base/reason.h"

namespace bottega {
namespace {

constexpr int32_t kVocabulary = 2000;

internal::v1::Submit Plain() {
  internal::v1::Submit submit;
  submit.add_prompt_ids(1);
  submit.set_max_tokens(5);
  submit.mutable_sampling()->set_top_p(1);
  return submit;
}

template <class Change>
absl::StatusOr<SequenceSpec> Changed(const Change& change) {
  internal::v1::Submit submit = Plain();
  change(*submit.mutable_sampling());
  return SpecOf(submit, 1, kVocabulary, Time{});
}

template <class Change>
void ExpectRefused(const Change& change) {
  EXPECT_EQ(ReasonOf(Changed(change).status()), Reason::kInvalidValue);
}

using Sampling = internal::v1::Sampling;

TEST(SpecOf, WithoutEditsThereAreNone) {
  const absl::StatusOr<SequenceSpec> spec = Changed([](Sampling&) {});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->rules.penalises());
  EXPECT_TRUE(spec->rules.bias.empty());
  EXPECT_TRUE(spec->rules.allowed_ids.empty());
  EXPECT_TRUE(spec->rules.bad_words.empty());
}

// A gateway has checked all of it; no number of a stranger's may reach past a row of logits.
TEST(SpecOf, R8_EditsAreOfIdsOfTheVocabularyAndInRange) {
  const auto bias = [](std::vector<int32_t> ids, double value) {
    return [ids = std::move(ids), value](Sampling& s) {
      for (int32_t id : ids) {
        auto* entry = s.add_logit_bias();
        entry->set_id(id);
        entry->set_bias(value);
      }
    };
  };
  EXPECT_TRUE(Changed(bias({0, kVocabulary - 1}, 100)).ok());
  ExpectRefused(bias({kVocabulary}, 1));
  ExpectRefused(bias({-1}, 1));
  ExpectRefused(bias({5, 5}, 1));
  ExpectRefused(bias({5}, 100.5));
  ExpectRefused(bias({5}, std::nan("")));
  std::vector<int32_t> many(limits::kLogitBiasMax);
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int32_t>(i);
  EXPECT_TRUE(Changed(bias(many, 1)).ok());
  many.push_back(static_cast<int32_t>(many.size()));
  ExpectRefused(bias(many, 1));

  const auto allowed = [](std::vector<int32_t> ids) {
    return [ids = std::move(ids)](Sampling& s) {
      s.mutable_allowed_token_ids()->Add(ids.begin(), ids.end());
    };
  };
  EXPECT_TRUE(Changed(allowed({0, kVocabulary - 1})).ok());
  ExpectRefused(allowed({kVocabulary}));
  ExpectRefused(allowed({-1}));
  ExpectRefused(allowed({3, 3}));

  const auto words = [](size_t count, size_t tokens, int32_t id) {
    return [=](Sampling& s) {
      for (size_t i = 0; i < count; ++i) {
        auto* word = s.add_bad_words();
        for (size_t token = 0; token < tokens; ++token) word->add_ids(id);
      }
    };
  };
  EXPECT_TRUE(Changed(words(2 * limits::kBadWordsMax, 1, 0)).ok());
  EXPECT_TRUE(Changed(words(1, limits::kBadWordTokensMax, kVocabulary - 1)).ok());
  ExpectRefused(words(2 * limits::kBadWordsMax + 1, 1, 0));
  ExpectRefused(words(1, limits::kBadWordTokensMax + 1, 0));
  ExpectRefused(words(1, 0, 0));
  ExpectRefused(words(1, 1, kVocabulary));

  const auto thinking = [](int32_t open, int32_t close) {
    return [=](Sampling& s) {
      s.mutable_thinking()->set_open_id(open);
      s.mutable_thinking()->set_close_id(close);
    };
  };
  EXPECT_TRUE(Changed(thinking(0, kVocabulary - 1)).ok());
  ExpectRefused(thinking(kVocabulary, 0));
  ExpectRefused(thinking(0, kVocabulary));
  ExpectRefused(thinking(0, -1));

  ExpectRefused([](Sampling& s) { s.set_repetition_penalty(10.1); });
  ExpectRefused([](Sampling& s) { s.set_repetition_penalty(-1); });
  ExpectRefused([](Sampling& s) { s.set_repetition_penalty(std::nan("")); });
  ExpectRefused([](Sampling& s) { s.set_frequency_penalty(2.1); });
  ExpectRefused([](Sampling& s) { s.set_presence_penalty(-2.1); });
  // What f32 has no number for is its least.
  EXPECT_EQ(
      Changed([](Sampling& s) { s.set_repetition_penalty(1e-300); })->rules.repetition_penalty,
      std::numeric_limits<float>::min());
}

}  // namespace
}  // namespace bottega
