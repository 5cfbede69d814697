// Histories of a whole cluster: requests under way, one thing breaks, every answer must be what it
// is on a cluster of one where nothing breaks, to the byte, logprobs included.
// BOTTEGA_FABRIC_SEEDS=n runs n histories, BOTTEGA_FABRIC_SEED=s one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;
using gateway::Json;

constexpr int kRequests = 6;

// Greedy and seeded, short and long prompts, chat and completion.
std::string Body(int request) {
  const char* const texts[] = {"Ciao", "Quanto fa 12 + 7?", "Repeat this: the quick brown fox"};
  Json body = {{"max_tokens", 10 + request},
               {"temperature", request % 2 == 0 ? 0.0 : 0.9},
               {"seed", 100 + request},
               {"ignore_eos", true},
               {"return_token_ids", true}};
  if (request % 3 == 2) {
    body["prompt"] = texts[request % 3];
    body["logprobs"] = 3;
  } else {
    body["messages"] = {{{"role", "user"}, {"content", texts[request % 3]}}};
    body["logprobs"] = true;
    body["top_logprobs"] = 3;
  }
  return body.dump();
}
gateway::Api ApiOf(int request) {
  return request % 3 == 2 ? gateway::Api::kCompletion : gateway::Api::kChat;
}

// What the answers are where nothing goes wrong: their choices, as text.
const std::vector<std::string>& Expected() {
  static const std::vector<std::string> expected = [] {
    ClusterWorld cluster({.attention_workers = 1, .expert_workers = 1});
    CHECK(cluster.BecomeReady());
    std::vector<std::string> answers;
    for (int r = 0; r < kRequests; ++r) {
      const auto answer = cluster.Ask(ApiOf(r), Body(r));
      CHECK(cluster.RunUntil([&] { return answer->done(); }, 60s));
      if (answer->status() != 200) std::fprintf(stderr, "%s\n", answer->body().c_str());
      CHECK(answer->status() == 200);
      answers.push_back(Json::parse(answer->body())["choices"].dump());
    }
    return answers;
  }();
  return expected;
}

enum class Mishap {
  kNone,
  kExpertDies,
  kExpertStops,
  kAttentionDies,
  kRouterDies,
  kFrames,
  kCount
};

int struck = 0;  // requests under way when something broke

// One round: all requests at once, a mishap among them.
void Round(ClusterWorld& cluster, uint64_t seed, Mishap mishap) {
  ASSERT_TRUE(cluster.BecomeReady()) << "seed " << seed;
  if (mishap == Mishap::kFrames) {
    cluster.SetFrameFaults([&cluster](FrameFate* fate, absl::Span<const std::byte> frame) {
      if (UncheckedHeader(frame).attempt >= limits::kAttemptsMax) return;
      fate->drop = cluster.Chance(0.01);
      if (cluster.Chance(0.02)) fate->copies = 2;
      if (cluster.Chance(0.01)) fate->corrupt = static_cast<int64_t>(cluster.Below(frame.size()));
    });
  }
  std::vector<std::shared_ptr<Answer>> answers;
  for (int r = 0; r < kRequests; ++r) answers.push_back(cluster.Ask(ApiOf(r), Body(r)));

  cluster.RunFor(cluster.Between(0us, 9ms));
  for (const auto& answer : answers) struck += mishap != Mishap::kNone && !answer->done();
  const uint32_t victim = static_cast<uint32_t>(cluster.Below(4));
  if (mishap == Mishap::kExpertDies) cluster.KillExpert(victim);
  if (mishap == Mishap::kExpertStops) cluster.PauseExpert(victim, cluster.Between(20ms, 800ms));
  if (mishap == Mishap::kAttentionDies) cluster.KillAttention(victim % 2);
  if (mishap == Mishap::kRouterDies) cluster.KillRouter();

  const bool all = cluster.RunUntil(
      [&] {
        return std::all_of(answers.begin(), answers.end(), [](const auto& a) { return a->done(); });
      },
      60s);
  EXPECT_TRUE(all) << "seed " << seed;
  for (int r = 0; r < kRequests; ++r) {
    ASSERT_EQ(answers[r]->status(), 200)
        << "seed " << seed << ", mishap " << static_cast<int>(mishap) << ", request " << r << ": "
        << answers[r]->body();
    EXPECT_EQ(Json::parse(answers[r]->body())["choices"].dump(), Expected()[r])
        << "seed " << seed << ", mishap " << static_cast<int>(mishap) << ", request " << r;
  }

  cluster.RunFor(cluster.Between(0ms, 1500ms));
  cluster.SetFrameFaults({});
  if (mishap == Mishap::kExpertDies) cluster.StartExpert(victim);
  if (mishap == Mishap::kAttentionDies) cluster.StartAttention(victim % 2);
  if (mishap == Mishap::kRouterDies) cluster.StartRouter();
  cluster.RunFor(3s);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

TEST(ClusterFabricTest, AnswersAreTheSameWhateverBreaks) {
  OpenLogSink({.least = LogLevel::kError});
  const uint64_t one = FromEnvironment("BOTTEGA_FABRIC_SEED", 0);
  const uint64_t seeds = FromEnvironment("BOTTEGA_FABRIC_SEEDS", 60);
  for (uint64_t seed = one > 0 ? one : 1; seed <= (one > 0 ? one : seeds); ++seed) {
    ClusterWorld cluster(
        {.seed = seed, .attention_workers = 2, .expert_workers = 4, .replication = 2});
    for (int m = 0; m < static_cast<int>(Mishap::kCount); ++m) {
      // Each history meets them in another order.
      const int mishap = static_cast<int>((m + seed) % static_cast<uint64_t>(Mishap::kCount));
      Round(cluster, seed, Mishap{mishap});
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
    cluster.RunFor(1s);
    for (uint32_t e = 0; e < 4; ++e) {
      EXPECT_TRUE(cluster.expert(e).engine().idle()) << "seed " << seed;
      EXPECT_EQ(cluster.expert(e).engine().pairs(), 2u) << "seed " << seed;
    }
  }
  std::printf("%d requests were under way when something broke\n", struck);
  EXPECT_TRUE(one > 0 || struck > static_cast<int>(seeds) * kRequests);
}

TEST(ClusterFabricTest, ASeedRepeatsItsHistory) {
  OpenLogSink({.least = LogLevel::kError});
  auto history = [](uint64_t seed) {
    ClusterWorld cluster(
        {.seed = seed, .attention_workers = 2, .expert_workers = 4, .replication = 2});
    Round(cluster, seed, Mishap::kExpertDies);
    Round(cluster, seed, Mishap::kAttentionDies);
    return cluster.loop().trace_hash();
  };
  EXPECT_EQ(history(5), history(5));
  EXPECT_NE(history(5), history(6));
}

}  // namespace
}  // namespace bottega::fabric
