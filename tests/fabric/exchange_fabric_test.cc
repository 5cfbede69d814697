// Histories of the exchange under faults, one per seed. BOTTEGA_FABRIC_SEEDS=n runs n of each kind;
// BOTTEGA_FABRIC_SEED=s runs one and prints what it was.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "observability/log.h"
#include "tests/fabric/exchange_world.h"

namespace bottega::fabric {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

struct Kind {
  const char* name;
  Weather weather;
};

class ExchangeFabricTest : public testing::TestWithParam<Kind> {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }
};
INSTANTIATE_TEST_SUITE_P(Weather, ExchangeFabricTest,
                         testing::Values(Kind{"Frames", Weather::kFrames},
                                         Kind{"Deaths", Weather::kDeaths},
                                         Kind{"Wild", Weather::kWild}),
                         [](const auto& info) { return info.param.name; });

TEST_P(ExchangeFabricTest, NothingIsLostDoubledOrChanged) {
  const uint64_t one = FromEnvironment("BOTTEGA_FABRIC_SEED", 0);
  const uint64_t seeds = FromEnvironment("BOTTEGA_FABRIC_SEEDS", 334);
  ExchangeWorld::Totals sum;
  for (uint64_t seed = one > 0 ? one : 1; seed <= (one > 0 ? one : seeds); ++seed) {
    ExchangeWorld world(seed, GetParam().weather);
    const std::vector<std::string> complaints = world.Run();
    for (const std::string& complaint : complaints) {
      ADD_FAILURE() << "seed " << seed << ": " << complaint;
    }
    if (!complaints.empty() && one == 0) break;  // one history is enough to look at
    sum.dispatches += world.totals.dispatches;
    sum.missing += world.totals.missing;
    sum.resends += world.totals.resends;
    sum.hedges += world.totals.hedges;
    sum.dropped += world.totals.dropped;
    sum.kills += world.totals.kills;
    sum.moves += world.totals.moves;
  }
  std::printf(
      "%lu dispatches (%lu missing an expert), %lu resends, %lu hedges, %lu frames dropped, "
      "%lu kills, %lu moves\n",
      sum.dispatches, sum.missing, sum.resends, sum.hedges, sum.dropped, sum.kills, sum.moves);
  // The weather was bad, or it proves nothing.
  if (one > 0) return;
  EXPECT_GT(sum.resends, sum.dispatches / 500);
  EXPECT_GT(sum.hedges, 0u);
  EXPECT_GT(sum.dropped, 0u);
  EXPECT_LE(sum.missing, sum.dispatches / 10);
  if (GetParam().weather != Weather::kFrames) {
    EXPECT_GE(sum.kills, seeds);
  }
}

// The same seed, the same history: else a failure could not be looked at again.
TEST_P(ExchangeFabricTest, ASeedRepeatsItsHistory) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    ExchangeWorld first(seed, GetParam().weather), second(seed, GetParam().weather);
    first.Run();
    second.Run();
    EXPECT_EQ(first.trace_hash(), second.trace_hash()) << "seed " << seed;
    ExchangeWorld other(seed + 1000, GetParam().weather);
    other.Run();
    EXPECT_NE(first.trace_hash(), other.trace_hash());
  }
}

}  // namespace
}  // namespace bottega::fabric
