// Whole clusters that answer with speculation what one without it answers, to the byte.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_requests.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;
using gateway::Api;
using gateway::Json;

constexpr OwnerId kNobody = 1'000'000;  // its tokens go nowhere

class SpeculationEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }

  static const Scheduler& SchedulerOf(ClusterWorld& world) {
    return world.attention(0).engine().scheduler();
  }
  static SpeculationStats StatsOf(ClusterWorld& world) {
    const Speculation* speculation = SchedulerOf(world).speculation();
    return speculation == nullptr ? SpeculationStats{} : speculation->stats();
  }
  // Comparable answers to all of them, asked at once or one by one; every block is free after.
  static std::vector<std::string> AskAll(ClusterWorld& world,
                                         const std::vector<std::string>& bodies, bool at_once) {
    EXPECT_TRUE(world.BecomeReady());
    Engine& engine = world.attention(0).engine();
    const int blocks = engine.free_blocks();
    std::vector<std::shared_ptr<Answer>> answers;
    const auto all_done = [&] {
      return std::ranges::all_of(answers, [](const auto& a) { return a->done(); });
    };
    for (const std::string& body : bodies) {
      answers.push_back(world.Ask(Api::kCompletion, body));
      EXPECT_TRUE(at_once || world.RunUntil(all_done, 60s));
    }
    EXPECT_TRUE(world.RunUntil(all_done, 120s));
    EXPECT_TRUE(world.RunUntil([&] { return engine.idle(); }, 10s));
    EXPECT_EQ(engine.free_blocks(), blocks);
    std::vector<std::string> texts;
    for (const auto& answer : answers) texts.push_back(Comparable(*answer));
    return texts;
  }
};

// A random model's text repeats itself when few tokens are to choose from: some drafts are right,
// some in part, some not at all.
std::string RandomBody(std::mt19937& random) {
  std::vector<int32_t> prompt;
  const size_t period = 2 + random() % 12;
  for (size_t i = 1 + random() % 80; i > 0; --i) {
    prompt.push_back(static_cast<int32_t>(random() % 50 == 0 ? random() % 900 : i % period * 31));
  }
  Json body = {{"prompt", prompt},
               {"max_tokens", 1 + random() % 90},
               {"ignore_eos", random() % 2 == 0},
               {"seed", random() % 3},
               {"temperature", random() % 3 == 0   ? 0.0
                               : random() % 2 == 0 ? 0.2
                                                   : 1.0},
               {"top_k", random() % 2 == 0 ? 2 : 0},
               {"logprobs", random() % 4},
               {"n", random() % 6 == 0 ? 2 : 1},
               {"stream", random() % 4 == 0},
               {"return_token_ids", true}};
  // Ends in the middle of accepted tokens, and may not before some.
  if (random() % 3 == 0) {
    std::vector<int32_t> stops(40);
    for (int32_t& id : stops) id = static_cast<int32_t>(random() % 900);
    body["stop_token_ids"] = stops;
    body["min_tokens"] = random() % 30;
    body["max_tokens"] = 90;
  }
  if (random() % 5 == 0) body["stop"] = {"e", "ts"};
  // Edits that hang on what was said before: of a drafted token, on the drafted ones before it.
  if (random() % 3 == 0) {
    body["repetition_penalty"] = random() % 2 == 0 ? 1.2 : 0.9;
    body["frequency_penalty"] = random() % 2 == 0 ? 0.1 : -0.1;
    body["presence_penalty"] = random() % 2 == 0 ? 0.2 : -0.2;
  }
  if (random() % 4 == 0) body["bad_words"] = {"e", "ts", "per", "ch", "an"};
  return body.dump();
}

TEST_F(SpeculationEngineTest, TheAnswersAreThoseOfPlainDecoding) {
  SpeculationStats stats;
  uint64_t preemptions = 0;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::vector<std::string> bodies;
    for (int i = 0; i < 16; ++i) bodies.push_back(RandomBody(random));
    ClusterWorld plain({.seed = seed, .prefix_cache = false, .draft_tokens = 0});
    const std::vector<std::string> expected = AskAll(plain, bodies, false);
    EXPECT_EQ(SchedulerOf(plain).speculation(), nullptr);
    ClusterOptions options{.seed = seed, .draft_tokens = seed % 2 == 0 ? 3 : 16};
    if (seed % 3 == 0) options.kv_bytes = 250'000;  // preempts
    if (seed % 4 == 0) options.prefill_tokens = 24;
    ClusterWorld world(options);
    const std::vector<std::string> got = AskAll(world, bodies, seed % 5 != 0);
    for (size_t i = 0; i < bodies.size(); ++i) {
      ASSERT_EQ(got[i], expected[i]) << "seed " << seed << ": " << bodies[i];
    }
    stats.drafts += StatsOf(world).drafts;
    stats.draft_tokens += StatsOf(world).draft_tokens;
    stats.accepted_tokens += StatsOf(world).accepted_tokens;
    preemptions += SchedulerOf(world).preemptions();
  }
  // All of it has happened.
  EXPECT_GT(stats.accepted_tokens, 500u);
  EXPECT_GT(stats.draft_tokens, stats.accepted_tokens + 500);
  EXPECT_GT(preemptions, 10u);
}

// K and V of each layer and position, too: of tokens that were drafted, and of those that took the
// place of rejected ones.
TEST_F(SpeculationEngineTest, TheKvIsThatOfPlainDecoding) {
  const auto kv = [](int64_t draft_tokens) {
    ClusterWorld world({.seed = 7, .draft_tokens = draft_tokens});
    CHECK(world.BecomeReady());
    Engine& engine = world.attention(0).engine();
    SequenceSpec spec{.key = {.owner = kNobody, .request_key = 1}};
    for (int i = 0; i < 40; ++i) spec.prompt_ids.push_back(i % 7 * 31);
    spec.sampling = {.temperature = 0.5, .top_k = 2, .seed = 5};
    spec.max_tokens = 400;
    spec.ignore_eos = true;
    CHECK(engine.Submit(spec).ok());
    const auto reached = [&] { return engine.KvCrcs(spec.key)[0].size() >= 300; };
    EXPECT_TRUE(world.RunUntil(reached, 60s, 5us));
    auto crcs = engine.KvCrcs(spec.key);
    for (auto& layer : crcs) layer.resize(300);
    const SpeculationStats stats = StatsOf(world);
    EXPECT_EQ(stats.accepted_tokens > 20, draft_tokens > 0);
    EXPECT_EQ(stats.draft_tokens > stats.accepted_tokens + 20, draft_tokens > 0);
    return crcs;
  };
  EXPECT_EQ(kv(8), kv(0));
}

}  // namespace
}  // namespace bottega::fabric
