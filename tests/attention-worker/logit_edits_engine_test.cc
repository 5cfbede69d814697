// Penalties, bias, allowed ids and bad words in the engine: what a plain reference makes of the
// model's own logits, token by token, with speculation and without it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "observability/log.h"
#include "tests/fabric/cluster_world.h"
#include "tests/golden/packed_graph.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;

constexpr size_t kTokens = 60;
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

SequenceSpec Spec(LogitRules rules) {
  SequenceSpec spec{.key = {.owner = 1'000'000, .request_key = 1}};
  for (int i = 0; i < 30; ++i) spec.prompt_ids.push_back(i % 7 * 31);
  spec.sampling.temperature = 0;
  spec.rules = std::move(rules);
  spec.max_tokens = 400;
  spec.ignore_eos = true;
  return spec;
}

class LogitEditsEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }

  // What a whole cluster generates.
  static std::vector<int32_t> Generate(const SequenceSpec& spec, int64_t draft_tokens) {
    ClusterWorld world({.seed = 3, .draft_tokens = draft_tokens});
    CHECK(world.BecomeReady());
    Engine& engine = world.attention(0).engine();
    CHECK(engine.Submit(spec).ok());
    const auto& sequences = engine.scheduler().sequences();
    const size_t before = spec.prompt_ids.size() + spec.resume_tokens.size();
    EXPECT_TRUE(world.RunUntil(
        [&] {
          return sequences.empty() || sequences.begin()->second->tokens.size() >= before + kTokens;
        },
        60s, 5us));
    if (sequences.empty()) return {};
    std::vector<int32_t> tokens = sequences.begin()->second->tokens;
    tokens.erase(tokens.begin(), tokens.begin() + static_cast<int64_t>(spec.prompt_ids.size()));
    tokens.resize(kTokens);
    return tokens;
  }
};

// vLLM's order, with maps: nothing is kept from token to token.
float Edited(float x, int32_t id, const SequenceSpec& spec, const std::vector<int32_t>& generated) {
  const LogitRules& rules = spec.rules;
  const auto count = [id](const std::vector<int32_t>& ids) {
    return static_cast<float>(std::count(ids.begin(), ids.end(), id));
  };
  if (rules.thinking) {
    const ThinkingBudget& budget = *rules.thinking;
    auto begin = generated.begin();
    if (budget.open_id) {
      begin = std::find(begin, generated.end(), *budget.open_id);
    }
    const bool inside = !budget.open_id || begin != generated.end();
    if (inside && budget.open_id) ++begin;
    const bool closed = std::count(begin, generated.end(), budget.close_id) > 0;
    if (inside && !closed && generated.end() - begin >= budget.tokens) {
      return id == budget.close_id ? 0 : kMinusInf;
    }
  }
  if (!rules.allowed_ids.empty() && count(rules.allowed_ids) == 0) return kMinusInf;
  for (const std::vector<int32_t>& word : rules.bad_words) {
    std::vector<int32_t> text = generated;
    text.push_back(id);
    if (text.size() >= word.size() && std::equal(word.rbegin(), word.rend(), text.rbegin())) {
      return kMinusInf;
    }
  }
  for (const LogitBias& bias : rules.bias) {
    if (bias.token == id) x += bias.bias;
  }
  if (count(spec.prompt_ids) + count(generated) > 0) {
    x = x > 0 ? x / rules.repetition_penalty : x * rules.repetition_penalty;
  }
  x -= rules.frequency_penalty * count(generated);
  if (count(generated) > 0) x -= rules.presence_penalty;
  return x;
}

// The same of the model's blocks and the reference, without sampler or engine. Greedy.
std::vector<int32_t> Reference(const SequenceSpec& spec) {
  const std::shared_ptr<const PackedModel>& model = FabricModel::Get().packed();
  PackedGraph graph(model, {.row_type = DType::kF32});
  const size_t vocabulary = static_cast<size_t>(model->config().vocab_size);
  std::vector<int32_t> generated, fed = spec.prompt_ids;
  while (generated.size() < kTokens) {
    const std::vector<float> logits = graph.Feed(0, fed, fed.size());
    const float* row = logits.data() + (fed.size() - 1) * vocabulary;
    int32_t best = 0;
    float most = kMinusInf;
    for (int32_t id = 0; id < static_cast<int32_t>(vocabulary); ++id) {
      const float x = Edited(row[id], id, spec, generated);
      if (x > most) best = id, most = x;
    }
    generated.push_back(best);
    fed = {best};
  }
  return generated;
}

// Rules of each kind alone and all together, made so that each of them bites.
std::map<std::string, LogitRules> RulesToTry() {
  const std::vector<int32_t> plain = Reference(Spec({}));
  std::map<std::string, LogitRules> all;
  all["repetition"].repetition_penalty = 1.4f;
  all["rewards repetition"].repetition_penalty = 0.8f;
  all["frequency"].frequency_penalty = 0.3f;
  all["presence"].presence_penalty = 0.9f;
  for (int32_t id = 0; id < 500; id += 3) {
    all["bias"].bias.push_back({id, static_cast<float>(id % 5) * 0.2f});
  }
  for (int32_t id = 5; id < 900; id += 11) all["allowed"].allowed_ids.push_back(id);
  // What the model says of itself: one token, a pair, a longer end.
  all["bad words"].bad_words = {
      {plain[0]}, {plain[2], plain[3]}, {plain[5], plain[6], plain[7], plain[8]}};
  LogitRules together = all["bad words"];
  together.repetition_penalty = 1.2f;
  together.frequency_penalty = 0.2f;
  together.presence_penalty = 0.4f;
  together.bias = all["bias"].bias;
  for (int32_t id = 0; id < 1000; id += 2) together.allowed_ids.push_back(id);
  all["together"] = together;
  all["thinking"].thinking = ThinkingBudget{.tokens = 6, .close_id = 1015};
  all["thinking, opened"].thinking =
      ThinkingBudget{.tokens = 9, .close_id = 1015, .open_id = plain[3]};
  all["together, thinking"] = together;
  all["together, thinking"].thinking = ThinkingBudget{.tokens = 11, .close_id = 3};
  return all;
}

TEST_F(LogitEditsEngineTest, TokensAreThoseOfThePlainReference) {
  const std::vector<int32_t> plain = Reference(Spec({}));
  ASSERT_EQ(Generate(Spec({}), 0), plain);
  for (const auto& [name, rules] : RulesToTry()) {
    SCOPED_TRACE(name);
    const SequenceSpec spec = Spec(rules);
    const std::vector<int32_t> expected = Reference(spec);
    EXPECT_NE(expected, plain);
    EXPECT_EQ(Generate(spec, 0), expected);
    EXPECT_EQ(Generate(spec, 8), expected);
  }
}

// Counts are rebuilt from the tokens.
TEST_F(LogitEditsEngineTest, W20_AResumedSequenceGoesOnTheSame) {
  for (const auto& [name, rules] : RulesToTry()) {
    SequenceSpec spec = Spec(rules);
    std::vector<int32_t> expected = Generate(spec, 0);
    spec.resume_tokens.assign(expected.begin(), expected.begin() + 17);
    EXPECT_EQ(Generate(spec, 8), expected) << name;
  }
}

// A contradiction that comes up on the way ends the sequence and nothing else.
TEST_F(LogitEditsEngineTest, ARequestThatForbidsAllItAllowsFailsAlone) {
  SequenceSpec hopeless = Spec({});
  hopeless.key.request_key = 2;
  hopeless.rules.allowed_ids = {7, 8};
  hopeless.rules.bad_words = {{8}, {7, 7, 7, 7, 7}};
  ClusterWorld world({.seed = 3});
  ASSERT_TRUE(world.BecomeReady());
  Engine& engine = world.attention(0).engine();
  const SequenceSpec neighbour = Spec({});
  ASSERT_TRUE(engine.Submit(neighbour).ok());
  ASSERT_TRUE(engine.Submit(hopeless).ok());
  const auto& sequences = engine.scheduler().sequences();
  ASSERT_TRUE(world.RunUntil([&] { return sequences.size() == 1; }, 60s, 5us));
  ASSERT_TRUE(
      world.RunUntil([&] { return sequences.begin()->second->generated() >= kTokens; }, 60s, 5us));
  std::vector<int32_t> tokens = sequences.begin()->second->tokens;
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<int64_t>(neighbour.prompt_ids.size()));
  tokens.resize(kTokens);
  EXPECT_EQ(tokens, Reference(neighbour));
}

}  // namespace
}  // namespace bottega::fabric
