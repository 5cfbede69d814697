// Cases of faults, one at a time: attention workers that are stopped and wake up, requests that
// kill their workers, expert workers that are all gone or answer wrongly, numbers that are not
// finite. Each answer must be the one without faults, to the byte, logprobs included.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_requests.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;
using gateway::Api;
using gateway::Json;

constexpr int kTokens = 66;
constexpr int32_t kMarker = 517;  // a token id that kills; no other prompt has it

std::string Body(uint32_t seed, std::vector<int32_t> prompt, int tokens = kTokens) {
  const Json body = {{"prompt", prompt}, {"max_tokens", tokens},    {"ignore_eos", true},
                     {"seed", seed},     {"temperature", seed % 2}, {"logprobs", 2},
                     {"stream", true},   {"return_token_ids", true}};
  return body.dump();
}
std::vector<int32_t> PromptOf(size_t tokens) {
  std::vector<int32_t> prompt(tokens);
  for (size_t i = 0; i < tokens; ++i) prompt[i] = static_cast<int32_t>(600 + i * 7 % 300);
  return prompt;
}

int TokensOf(const Answer& answer) {
  int tokens = 0;
  for (size_t at = 0; (at = answer.body().find("\"token_ids\":[", at)) != std::string::npos; ++at) {
    ++tokens;
  }
  return tokens;
}

class FaultCasesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }

  // What a cluster of one of each answers.
  static std::string Clean(const std::string& body) {
    ClusterWorld cluster({.seed = 1,
                          .attention_workers = 1,
                          .expert_workers = 1,
                          .prefix_cache = false,
                          .draft_tokens = 0});
    CHECK(cluster.BecomeReady());
    const auto answer = cluster.Ask(Api::kCompletion, body);
    CHECK(cluster.RunUntil([&] { return answer->done(); }, 60s));
    return Comparable(*answer);
  }
  void Make(ClusterOptions options) {
    cluster = std::make_unique<ClusterWorld>(options);
    ASSERT_TRUE(cluster->BecomeReady());
  }
  std::shared_ptr<Answer> Ask(const std::string& body) {
    return cluster->Ask(Api::kCompletion, body);
  }
  // The attention worker that runs something.
  uint32_t Busy() {
    for (uint32_t i = 0; i < cluster->attention_workers(); ++i) {
      if (cluster->attention_node(i) && !cluster->attention(i).engine().idle()) return i;
    }
    ADD_FAILURE() << "nobody is busy";
    return 0;
  }
  bool Ends(const std::vector<std::shared_ptr<Answer>>& answers, Duration limit = 60s) {
    return cluster->RunUntil(
        [&] { return std::ranges::all_of(answers, [](const auto& a) { return a->done(); }); },
        limit);
  }

  std::unique_ptr<ClusterWorld> cluster;
};

// Stopped for 5 s in the middle: found within about a second, its requests go on elsewhere; then it
// wakes up, and its tokens and dispatches change nothing. It is used again.
TEST_F(FaultCasesTest, W19_W24_AStoppedAttentionWorkerIsLeftAndItsLateTokensAreRefused) {
  for (const bool router : {true, false}) {
    const std::string body = Body(9, PromptOf(20));
    const std::string clean = Clean(body);
    Make({.seed = 19, .attention_workers = 2, .expert_workers = 2});
    std::vector<std::shared_ptr<Answer>> answers;
    for (int i = 0; i < 4; ++i) answers.push_back(Ask(body));
    ASSERT_TRUE(cluster->RunUntil([&] { return TokensOf(*answers[0]) >= 10; }, 20s));
    // Without a router the gateway's own evidence must do.
    if (!router) cluster->KillRouter();
    const Time stopped = cluster->loop().Now();
    cluster->PauseAttention(0, 5s);
    ASSERT_TRUE(Ends(answers));
    EXPECT_LT(cluster->loop().Now() - stopped, 2s) << "router " << router;
    for (const auto& answer : answers) EXPECT_EQ(Comparable(*answer), clean);
    if (!router) cluster->StartRouter();
    cluster->RunFor(8s);
    ASSERT_TRUE(cluster->BecomeReady());
    EXPECT_EQ(cluster->gateway().workers().Workers().size(), 2u);
    for (const auto& answer : answers) EXPECT_EQ(Comparable(*answer), clean);
  }
}

// A prompt with the marker kills every attention worker that computes it. Two die; it is refused;
// those that were with it end as without it.
TEST_F(FaultCasesTest, W23_ARequestThatKillsAttentionWorkers) {
  std::vector<std::string> bodies, clean;
  for (uint32_t i = 0; i < 8; ++i) {
    bodies.push_back(Body(30 + i, PromptOf(5 + 3 * i)));
    clean.push_back(Clean(bodies.back()));
  }
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    Make({.seed = seed, .attention_workers = 2, .expert_workers = 2});
    const auto arm = [&](uint32_t index) {
      EXPECT_TRUE(
          cluster->attention_faults(index).Arm(fmt::format("aw.crash_if=crash:{}", kMarker)).ok());
    };
    arm(0);
    arm(1);
    std::vector<std::shared_ptr<Answer>> answers;
    for (const std::string& body : bodies) answers.push_back(Ask(body));
    cluster->RunUntil([&] { return TokensOf(*answers[0]) >= static_cast<int>(seed); }, 5s);
    std::vector<int32_t> prompt = PromptOf(12);
    prompt[6] = kMarker;
    const std::string poison = Body(99, prompt);
    const auto refused = Ask(poison);
    const auto done = [&] {
      // A worker that is started anew dies of it too.
      if (cluster->attention_crashes > 0) {
        for (uint32_t i = 0; i < 2; ++i) {
          if (cluster->attention_node(i)) arm(i);
        }
      }
      return refused->done() &&
             std::ranges::all_of(answers, [](const auto& a) { return a->done(); });
    };
    ASSERT_TRUE(cluster->RunUntil(done, 60s)) << seed;
    EXPECT_EQ(cluster->attention_crashes, 2u) << seed;
    EXPECT_NE(refused->body().find("request_quarantined"), std::string::npos) << refused->body();
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(Comparable(*answers[i]), clean[i]) << "seed " << seed << ", request " << i;
    }
    ASSERT_TRUE(cluster->BecomeReady());
    const auto again = Ask(poison);
    ASSERT_TRUE(Ends({again}));
    EXPECT_EQ(again->status(), 400);
    EXPECT_EQ(cluster->attention_crashes, 2u) << seed;
  }
}

// The same with rows that kill expert workers: the third time they are alone, and fail. With two
// attention workers the innocent rows of the other one, which lost the same workers, are on trial
// too: never beside them. Before waiting for a trial was no attempt, one seed in fifteen failed an
// innocent request.
TEST_F(FaultCasesTest, W23_ARequestThatKillsExpertWorkers) {
  const std::string body = Body(50, PromptOf(10));
  const std::string clean = Clean(body);
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Make({.seed = seed,
          .attention_workers = 1 + static_cast<uint32_t>(seed % 2),
          .expert_workers = 4,
          .replication = 4});
    for (uint32_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(cluster->expert_faults(i).Arm("ew.crash_if=crash:1111638594").ok());
    }
    for (uint32_t i = 0; i < cluster->attention_workers(); ++i) {
      ASSERT_TRUE(
          cluster->attention_faults(i).Arm(fmt::format("aw.mark_if=error:{}", kMarker)).ok());
    }
    std::vector<std::shared_ptr<Answer>> innocent;
    for (int i = 0; i < 6; ++i) innocent.push_back(Ask(body));
    ASSERT_TRUE(cluster->RunUntil([&] { return TokensOf(*innocent[0]) >= 3; }, 20s));
    std::vector<int32_t> prompt = PromptOf(6);
    prompt[2] = kMarker;
    const auto refused = Ask(Body(51, prompt));
    innocent.push_back(refused);
    ASSERT_TRUE(Ends(innocent));
    innocent.pop_back();
    EXPECT_NE(refused->body().find("request_quarantined"), std::string::npos) << refused->body();
    EXPECT_LE(cluster->expert_crashes, 3u) << seed;
    for (const auto& answer : innocent) EXPECT_EQ(Comparable(*answer), clean);
  }
}

// Every replica is dead. Requests that need it wait; when one comes back they finish, else they are
// told.
TEST_F(FaultCasesTest, W8_AllReplicasDead) {
  const std::string body = Body(60, PromptOf(10));
  const std::string clean = Clean(body);
  for (const bool comes_back : {true, false}) {
    Make({.seed = 8, .attention_workers = 1, .expert_workers = 2, .replication = 2});
    const auto answer = Ask(body);
    ASSERT_TRUE(cluster->RunUntil([&] { return TokensOf(*answer) >= 5; }, 20s));
    cluster->KillExpert(0);
    cluster->KillExpert(1);
    cluster->RunFor(3s);
    EXPECT_FALSE(answer->done());
    if (comes_back) cluster->StartExpert(1);
    // One wait for the experts, not one for each layer.
    ASSERT_TRUE(Ends({answer}, 9s));
    if (comes_back) {
      EXPECT_EQ(Comparable(*answer), clean);
    } else {
      EXPECT_NE(answer->body().find("experts_unavailable"), std::string::npos) << answer->body();
    }
  }
}

// A prompt whose step failed in the middle of the layers: what it wrote is not its KV, and nobody
// finds it.
TEST_F(FaultCasesTest, W8_AFailedStepLeavesNothingInThePrefixCache) {
  const std::string body = Body(61, PromptOf(40));
  const std::string clean = Clean(body);
  Make({.seed = 61, .attention_workers = 1, .expert_workers = 2, .replication = 2});
  cluster->KillExpert(0);
  cluster->KillExpert(1);
  const auto failed = Ask(body);
  ASSERT_TRUE(Ends({failed}));
  EXPECT_NE(failed->body().find("experts_unavailable"), std::string::npos) << failed->body();
  cluster->StartExpert(1);
  ASSERT_TRUE(cluster->BecomeReady());
  const auto answer = Ask(body);
  ASSERT_TRUE(Ends({answer}));
  EXPECT_EQ(Comparable(*answer), clean);
  EXPECT_EQ(cluster->attention(0).engine().scheduler().cache_hit_tokens(), 0u);
}

struct WrongAnswers {
  const char* name;
  const char* plan;
  bool quarantined;
};

class WrongAnswersTest : public FaultCasesTest, public testing::WithParamInterface<WrongAnswers> {};

// An expert worker answers wrongly for a while: no answer shows it, the worker is out of the table
// as long as it does, and comes back once its self-test passes.
TEST_P(WrongAnswersTest, AreNeverUsed) {
  const std::string body = Body(70, PromptOf(10));
  const std::string clean = Clean(body);
  Make({.seed = 70,
        .attention_workers = 2,
        .expert_workers = 4,
        .replication = 3,
        .verify_every = 1});
  ASSERT_TRUE(cluster->expert_faults(1).Arm(GetParam().plan).ok());
  std::vector<std::shared_ptr<Answer>> answers;
  for (int i = 0; i < 4; ++i) answers.push_back(Ask(body));
  ASSERT_TRUE(Ends(answers));
  for (const auto& answer : answers) EXPECT_EQ(Comparable(*answer), clean);
  const auto quarantined = [&] {
    return std::ranges::any_of(cluster->table()->members, [](const Member& member) {
      return member.name == "expert-1" && member.state == MemberState::kQuarantined;
    });
  };
  EXPECT_EQ(quarantined(), GetParam().quarantined);
  const std::string name(GetParam().plan, std::string_view(GetParam().plan).find('='));
  cluster->expert_faults(1).Disarm(name);
  EXPECT_TRUE(cluster->RunUntil([&] { return cluster->ExpertsWhole(); }, 20s));
  const auto after = Ask(body);
  ASSERT_TRUE(Ends({after}));
  EXPECT_EQ(Comparable(*after), clean);
}

// Only a few dispatches are executed twice: what was cached before the worker was found out may
// come of its rows. Both attention workers forget it, also the one that did not find out itself;
// without a router the one that did.
TEST_F(FaultCasesTest, D3_WhatWasCachedBeforeAWorkerWasFoundWrongIsForgotten) {
  const std::string body = Body(71, PromptOf(40));
  const std::string clean = Clean(body);
  for (const bool router : {true, false}) {
    Make({.seed = 71,
          .attention_workers = 2,
          .expert_workers = 4,
          .replication = 3,
          .verify_every = 1});
    ASSERT_TRUE(Ends({Ask(body), Ask(body)}));
    const auto cached = [&](uint32_t i) {
      return cluster->attention(i).engine().scheduler().cached_blocks();
    };
    EXPECT_GT(cached(0), 0);
    EXPECT_GT(cached(1), 0);
    if (!router) cluster->KillRouter();
    ASSERT_TRUE(cluster->expert_faults(1).Arm("ew.compute=corrupt").ok());
    const auto other = Ask(Body(72, {1, 2, 3}, 8));  // one worker's, and too short to be cached
    ASSERT_TRUE(Ends({other}));
    const auto forgotten = [&] { return (cached(0) == 0) + (cached(1) == 0); };
    EXPECT_TRUE(cluster->RunUntil([&] { return forgotten() == 1 + router; }, 2s)) << router;
    const auto after = Ask(body);
    ASSERT_TRUE(Ends({after}));
    EXPECT_EQ(Comparable(*after), clean);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, WrongAnswersTest,
    testing::Values(WrongAnswers{"D1_NotFinite", "ew.compute=corrupt:ones", true},
                    WrongAnswers{"D1_NotFiniteAtTimes", "ew.compute=corrupt:ones@p0.2/5", true},
                    WrongAnswers{"D2_WrongHeader", "ew.header=corrupt@p0.9/7", true},
                    WrongAnswers{"D3_FlippedBits", "ew.compute=corrupt@p0.05/9", true},
                    WrongAnswers{"N8_CorruptFrames", "ew.reply=corrupt@p0.3/11", false}),
    [](const auto& info) { return std::string(info.param.name); });

// A logits row that is not finite never becomes a token: the sequence is computed once more, all of
// it, since what it had cached may be the cause. What comes then is cached again.
TEST_F(FaultCasesTest, D4_LogitsThatAreNotFinite) {
  const std::string body = Body(80, PromptOf(40));
  const std::string clean = Clean(body);
  for (const int step : {1, 2, 30}) {
    Make({.seed = 80, .attention_workers = 1, .expert_workers = 2});
    ASSERT_TRUE(
        cluster->attention_faults(0).Arm(fmt::format("aw.logits=corrupt:ones@{}", step)).ok());
    const auto answer = Ask(body);
    ASSERT_TRUE(Ends({answer}));
    EXPECT_EQ(Comparable(*answer), clean) << step;
    const Scheduler& scheduler = cluster->attention(0).engine().scheduler();
    EXPECT_EQ(scheduler.cache_hit_tokens(), 0u) << step;
    const auto again = Ask(body);
    ASSERT_TRUE(Ends({again}));
    EXPECT_EQ(Comparable(*again), clean) << step;
    EXPECT_EQ(scheduler.cache_hit_tokens(), 32u) << step;
  }
  ASSERT_TRUE(cluster->attention_faults(0).Arm("aw.logits=corrupt:ones").ok());
  const auto answer = Ask(body);
  ASSERT_TRUE(Ends({answer}));
  EXPECT_EQ(answer->status(), 500) << answer->body();
  EXPECT_EQ(TokensOf(*answer), 0);
}

// A request that loses its worker finds at the next one what another request left there: the same
// blocks, and the same answer.
TEST_F(FaultCasesTest, W16_D7_AReplayHitsThePrefixCache) {
  const std::string body = Body(92, PromptOf(40));
  const std::string clean = Clean(body);
  Make({.seed = 92, .attention_workers = 2, .expert_workers = 2});
  const std::vector<std::shared_ptr<Answer>> answers = {Ask(body), Ask(body)};
  ASSERT_TRUE(cluster->RunUntil(
      [&] { return TokensOf(*answers[0]) >= 25 && TokensOf(*answers[1]) >= 25; }, 20s));
  ASSERT_FALSE(cluster->attention(0).engine().idle());
  ASSERT_FALSE(cluster->attention(1).engine().idle());
  cluster->KillAttention(0);
  const Scheduler& scheduler = cluster->attention(1).engine().scheduler();
  ASSERT_TRUE(cluster->RunUntil([&] { return scheduler.cache_hit_tokens() > 0; }, 20s));
  EXPECT_EQ(scheduler.cache_hit_tokens(), 64u);
  ASSERT_EQ(scheduler.sequences().size(), 2u);
  const Sequence& stayed = *scheduler.sequences().begin()->second;
  const Sequence& moved = *scheduler.sequences().rbegin()->second;
  EXPECT_TRUE(moved.replays);
  EXPECT_TRUE(std::ranges::equal(absl::MakeConstSpan(moved.blocks).first(4),
                                 absl::MakeConstSpan(stayed.blocks).first(4)));
  ASSERT_TRUE(Ends(answers));
  for (const auto& answer : answers) EXPECT_EQ(Comparable(*answer), clean);
}

// What a replay computes into its KV cache is what was there, at each layer and position.
TEST_F(FaultCasesTest, D8_TheKvOfAReplayIsTheSame) {
  const std::string body = Body(90, PromptOf(40));
  const auto run = [&](bool killed) {
    Make({.seed = 90, .attention_workers = 2, .expert_workers = 2});
    const auto answer = Ask(body);
    EXPECT_TRUE(cluster->RunUntil([&] { return TokensOf(*answer) >= 20; }, 20s));
    if (killed) {
      cluster->KillAttention(Busy());
      EXPECT_TRUE(cluster->RunUntil([&] { return TokensOf(*answer) >= 40; }, 20s));
    }
    for (uint32_t i = 0; i < 2; ++i) {
      if (!cluster->attention_node(i)) continue;
      const Engine& engine = cluster->attention(i).engine();
      for (const auto& [order, sequence] : engine.scheduler().sequences()) {
        return engine.KvCrcs(sequence->spec.key);
      }
    }
    return std::vector<std::vector<uint32_t>>();
  };
  std::vector<std::vector<uint32_t>> once = run(false), again = run(true);
  ASSERT_FALSE(once.empty());
  ASSERT_EQ(once.size(), again.size());
  for (size_t layer = 0; layer < once.size(); ++layer) {
    ASSERT_GE(once[layer].size(), 59u);
    ASSERT_GT(again[layer].size(), once[layer].size());
    again[layer].resize(once[layer].size());
    EXPECT_EQ(once[layer], again[layer]) << "layer " << layer;
  }
}

}  // namespace
}  // namespace bottega::fabric
