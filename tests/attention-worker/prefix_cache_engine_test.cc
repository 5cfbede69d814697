// Whole clusters that answer with a prefix cache what one without it answers, to the byte: D7, S7.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
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

class PrefixCacheEngineTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }

  static Json Body(const std::vector<int32_t>& prompt, int tokens = 8) {
    return {{"prompt", prompt}, {"max_tokens", tokens}, {"ignore_eos", true},
            {"seed", 3},        {"temperature", 1},     {"logprobs", 3}};
  }
  static std::vector<int32_t> Prompt(size_t tokens) {
    std::vector<int32_t> prompt(tokens);
    for (size_t i = 0; i < tokens; ++i) prompt[i] = static_cast<int32_t>(i * 31 % 900);
    return prompt;
  }
  // Cached tokens, as a client is told.
  static int Cached(ClusterWorld& world, const Json& body) {
    const auto answer = world.Ask(Api::kCompletion, body.dump());
    EXPECT_TRUE(world.RunUntil([&] { return answer->done(); }, 60s));
    EXPECT_EQ(answer->status(), 200) << answer->body();
    const Json whole = Json::parse(answer->body(), nullptr, false);
    return whole["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  }
  static const Scheduler& SchedulerOf(ClusterWorld& world) {
    return world.attention(0).engine().scheduler();
  }
};

// Prompts that begin alike, in random mixes: chunks, pools so small that blocks are evicted and
// sequences preempted, hashes that collide, others that are cancelled at any stage.
TEST_F(PrefixCacheEngineTest, D7_AHitIsARecompute) {
  uint64_t hits = 0, preemptions = 0;
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    std::mt19937 random(static_cast<uint32_t>(seed));
    std::vector<std::string> bodies;
    for (int i = 0; i < 16; ++i) {
      std::vector<int32_t> prompt = Prompt(random() % 120);
      for (size_t tail = 1 + random() % 20; tail > 0; --tail) {
        prompt.push_back(static_cast<int32_t>(random() % 3));
      }
      Json body = Body(prompt, 1 + static_cast<int>(random() % 40));
      body["seed"] = random() % 2;
      body["temperature"] = random() % 2;
      if (random() % 4 == 0) body["cache_salt"] = "another";
      bodies.push_back(body.dump());
    }
    const auto ask_all = [&](bool cache) {
      ClusterOptions options{.seed = seed, .prefix_cache = cache};
      if (cache) {
        options.prefill_tokens = seed % 2 == 0 ? 24 : 512;
        if (seed % 3 == 0) options.kv_bytes = 250'000;
        if (seed % 4 == 0) options.prefix_hash_mask = 7;
      }
      ClusterWorld world(options);
      EXPECT_TRUE(world.BecomeReady());
      Engine& engine = world.attention(0).engine();
      const int blocks = engine.free_blocks();
      std::vector<std::shared_ptr<Answer>> answers;
      std::vector<SequenceKey> noise;
      for (const std::string& body : bodies) {
        answers.push_back(world.Ask(Api::kCompletion, body));
        if (cache) {
          SequenceSpec spec{.key = {.owner = kNobody, .request_key = noise.size()}};
          spec.prompt_ids = Prompt(1 + random() % 120);
          spec.max_tokens = 60;
          noise.push_back(spec.key);
          EXPECT_TRUE(engine.Submit(std::move(spec)).ok());
        }
        world.RunFor(std::chrono::microseconds(random() % 3000));
        if (cache && random() % 2 == 0) engine.Cancel(noise[random() % noise.size()]);
      }
      engine.CancelOwner(kNobody);
      EXPECT_TRUE(world.RunUntil(
          [&] { return std::ranges::all_of(answers, [](const auto& a) { return a->done(); }); },
          60s));
      EXPECT_TRUE(world.RunUntil([&] { return engine.idle(); }, 10s));
      EXPECT_EQ(engine.free_blocks(), blocks);
      if (cache) hits += SchedulerOf(world).cache_hit_tokens();
      if (cache) preemptions += SchedulerOf(world).preemptions();
      std::vector<std::string> texts;
      for (const auto& answer : answers) texts.push_back(Comparable(*answer));
      return texts;
    };
    const std::vector<std::string> expected = ask_all(false);
    ASSERT_NE(expected[0].find("top_logprobs"), std::string::npos) << expected[0];
    const std::vector<std::string> got = ask_all(true);
    for (size_t i = 0; i < bodies.size(); ++i) {
      ASSERT_EQ(got[i], expected[i]) << "seed " << seed << ": " << bodies[i];
    }
  }
  EXPECT_GT(hits, 10'000u);
  EXPECT_GT(preemptions, 10u);
}

// K and V of each layer and position, too.
TEST_F(PrefixCacheEngineTest, D7_TheKvOfAHitIsTheSame) {
  const auto kv = [](bool cache, int times) {
    ClusterWorld world({.seed = 7, .prefix_cache = cache});
    CHECK(world.BecomeReady());
    Engine& engine = world.attention(0).engine();
    std::vector<std::vector<uint32_t>> crcs;
    for (int i = 0; i < times; ++i) {
      SequenceSpec spec{.key = {.owner = kNobody, .request_key = static_cast<uint64_t>(i)}};
      spec.prompt_ids = Prompt(100);
      spec.max_tokens = 40;
      CHECK(engine.Submit(spec).ok());
      const auto reached = [&] { return engine.KvCrcs(spec.key)[0].size() >= 120; };
      EXPECT_TRUE(world.RunUntil(reached, 10s, 5us));
      const Sequence& sequence = *engine.scheduler().sequences().begin()->second;
      EXPECT_EQ(sequence.hit, i == 0 ? 0 : 96);
      crcs = engine.KvCrcs(spec.key);
      engine.Cancel(spec.key);
      EXPECT_TRUE(world.RunUntil([&] { return engine.idle(); }, 10s));
    }
    for (auto& layer : crcs) layer.resize(120);
    return crcs;
  };
  EXPECT_EQ(kv(true, 2), kv(false, 1));
}

TEST_F(PrefixCacheEngineTest, AClientIsToldWhatWasCached) {
  ClusterWorld world({.seed = 3});
  ASSERT_TRUE(world.BecomeReady());
  EXPECT_EQ(Cached(world, Body(Prompt(100))), 0);
  EXPECT_EQ(Cached(world, Body(Prompt(100))), 96);
  EXPECT_EQ(Cached(world, Body(Prompt(96))), 80);  // its last token is computed
  EXPECT_EQ(Cached(world, Body(Prompt(40))), 32);
  Json two = Body(Prompt(100));
  two["n"] = 2;
  EXPECT_EQ(Cached(world, two), 96);  // of one prompt
  EXPECT_EQ(SchedulerOf(world).cache_hit_tokens(), 96u + 80u + 32u + 2u * 96u);
  ClusterWorld off({.seed = 3, .prefix_cache = false});
  ASSERT_TRUE(off.BecomeReady());
  EXPECT_EQ(Cached(off, Body(Prompt(100))), 0);
  EXPECT_EQ(Cached(off, Body(Prompt(100))), 0);
}

// Another tenant's prompt is computed in full, as one that nobody has sent: there is nothing to
// time. One's own is found.
TEST_F(PrefixCacheEngineTest, S7_TenantsDoNotSeeEachOther) {
  ClusterWorld world({.seed = 5, .prefill_tokens = 16});
  ASSERT_TRUE(world.BecomeReady());
  FaultPoints& faults = world.attention_faults(0);
  const auto steps = [&](const std::vector<int32_t>& prompt, const char* salt) {
    Json body = Body(prompt, 1);
    body["cache_salt"] = salt;
    EXPECT_TRUE(faults.Arm("aw.step=sleep:0ms").ok());
    Cached(world, body);
    return faults.hits("aw.step");
  };
  std::vector<int32_t> unknown = Prompt(100);
  unknown[0] = 999;
  const uint64_t full = steps(Prompt(100), "victim");
  EXPECT_EQ(steps(Prompt(100), "attacker"), full);
  EXPECT_EQ(steps(unknown, "attacker"), full);
  EXPECT_EQ(steps(Prompt(100), ""), full);
  EXPECT_EQ(SchedulerOf(world).cache_hit_tokens(), 0u);
  EXPECT_EQ(steps(Prompt(100), "victim"), 1u);
}

}  // namespace
}  // namespace bottega::fabric
