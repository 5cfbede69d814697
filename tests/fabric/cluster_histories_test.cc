// Histories of whole clusters under faults, one per seed. BOTTEGA_FABRIC_SEEDS=n runs n;
// BOTTEGA_FABRIC_SEED=s runs one and logs what its actors say.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "observability/log.h"
#include "tests/fabric/cluster_history.h"

namespace bottega::fabric {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

const uint64_t kOne = FromEnvironment("BOTTEGA_FABRIC_SEED", 0);

class ClusterHistoriesTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    OpenLogSink({.least = kOne > 0 ? LogLevel::kInfo : LogLevel::kError});
  }
};

TEST_F(ClusterHistoriesTest, EveryAnswerIsTheOneWithoutFaults) {
  const uint64_t first = kOne > 0 ? kOne : 1;
  const uint64_t last = kOne > 0 ? kOne : FromEnvironment("BOTTEGA_FABRIC_SEEDS", 150);
  ClusterHistory::Totals sum;
  for (uint64_t seed = first; seed <= last; ++seed) {
    ClusterHistory history(seed);
    const std::vector<std::string> complaints = history.Run();
    for (const std::string& complaint : complaints) {
      ADD_FAILURE() << "seed " << seed << ": " << complaint;
    }
    sum.Add(history.totals);
  }
  std::printf(
      "%lu answers; deaths: %lu expert workers, %lu attention workers, %lu routers; %lu and %lu "
      "pauses of them, %lu times wrong answers, %lu cuts, %lu streams and %lu endpoints broken; "
      "%lu tokens were cached; "
      "frames: %lu lost, %lu copied, %lu changed; "
      "at rest after at most %ld ms\n",
      sum.answers, sum.expert_deaths, sum.attention_deaths, sum.router_deaths, sum.pauses,
      sum.attention_pauses, sum.wrong_answers, sum.cuts, sum.broken_streams, sum.broken_endpoints,
      sum.cached_tokens, sum.frames_lost, sum.frames_copied, sum.frames_changed,
      static_cast<long>(sum.longest_calm / std::chrono::milliseconds(1)));
  if (kOne > 0) return;
  // The weather was bad, or it proves nothing.
  const uint64_t few = last / 4;
  EXPECT_GT(sum.expert_deaths, few);
  EXPECT_GT(sum.attention_deaths, few);
  EXPECT_GT(sum.router_deaths, few);
  EXPECT_GT(sum.frames_lost, last);
  EXPECT_GT(sum.frames_changed, last);
  EXPECT_GT(sum.attention_pauses, few);
  EXPECT_GT(sum.wrong_answers, few);
  EXPECT_GT(sum.faults(), 50 * last);
  EXPECT_GT(sum.cached_tokens, 50 * last);
}

// A router that starts anew knows those first that come back first; a table of only them would make
// the gateway leave an attention worker in the middle of its answers.
TEST_F(ClusterHistoriesTest, ANewRouterTakesNobodyAway) {
  using namespace std::chrono_literals;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    ClusterWorld world({.seed = seed, .attention_workers = 2, .expert_workers = 4});
    ASSERT_TRUE(world.BecomeReady());
    world.RunFor(500ms);
    world.KillRouter();
    world.RunFor(100ms);
    world.StartRouter();
    const uint64_t term = world.gateway_term();
    const auto lost = [&] { return world.gateway().workers().Workers().size() < 2; };
    EXPECT_FALSE(world.RunUntil(lost, 5s)) << "seed " << seed;
    EXPECT_GT(world.gateway_term(), term) << "seed " << seed;
  }
}

// The same seed, the same history: else a failure could not be looked at again.
TEST_F(ClusterHistoriesTest, ASeedRepeatsItsHistory) {
  for (uint64_t seed : {1, 2, 3}) {
    ClusterHistory first(seed), second(seed);
    first.Run();
    second.Run();
    EXPECT_EQ(first.trace_hash(), second.trace_hash()) << "seed " << seed;
    ClusterHistory other(seed + 1000);
    other.Run();
    EXPECT_NE(first.trace_hash(), other.trace_hash());
  }
}

}  // namespace
}  // namespace bottega::fabric
