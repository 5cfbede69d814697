// Built once per planted bug (core/exchange/planted_bug.h): a fabric that does not find it proves
// nothing when it is silent.
#include "core/exchange/planted_bug.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "observability/log.h"
#include "tests/fabric/exchange_world.h"

namespace bottega::fabric {
namespace {

static_assert(kPlantedBug != PlantedBug::kNone);

TEST(PlantedBugTest, IsFound) {
  OpenLogSink({.least = LogLevel::kError});
  // Of the suite's 1,000 seeds.
  for (uint64_t seed = 1; seed <= 334; ++seed) {
    for (Weather weather : {Weather::kFrames, Weather::kDeaths, Weather::kWild}) {
      ExchangeWorld world(seed, weather);
      const std::vector<std::string> complaints = world.Run();
      if (complaints.empty()) continue;
      std::printf("found by seed %lu in weather %d: %s\n", seed, static_cast<int>(weather),
                  complaints.front().c_str());
      return;
    }
  }
  FAIL() << "planted bug " << static_cast<int>(kPlantedBug) << " was not found";
}

}  // namespace
}  // namespace bottega::fabric
