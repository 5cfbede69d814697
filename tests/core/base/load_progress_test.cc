#include "core/base/load_progress.h"

#include <gtest/gtest.h>

#include <utility>

namespace bottega {
namespace {

using namespace std::chrono_literals;

TEST(LoadProgress, IsAShareOfWhatIsExpected) {
  LoadProgress load;
  EXPECT_EQ(load.ratio(), 0);
  load.Expect(200);
  load.Add(50);
  EXPECT_EQ(load.ratio(), 0.25);
  load.Expect(-100);  // fewer after all
  EXPECT_EQ(load.ratio(), 0.5);
  load.Add(70);  // 20 more than anybody asked for
  EXPECT_EQ(load.ratio(), 1);
  EXPECT_EQ(load.loaded(), 100);
}

TEST(LoadProgress, StallsWhereItStandsStill) {
  LoadProgress load;
  const auto later = [] { return LoadProgress::Clock::now() + 6min; };
  EXPECT_FALSE(load.Stalled(kLoadStallMax, later()));  // there is nothing to load
  load.Expect(100);
  EXPECT_TRUE(load.Stalled(kLoadStallMax, later()));
  EXPECT_FALSE(load.Stalled(kLoadStallMax));
  load.Add(99);
  EXPECT_TRUE(load.Stalled(kLoadStallMax, later()));
  load.Add(1);
  EXPECT_FALSE(load.Stalled(kLoadStallMax, later()));
}

TEST(LoadedBytes, CountWhileTheyAreHeld) {
  LoadProgress load;
  load.Expect(100);
  {
    LoadedBytes first(&load);
    first.Add(30);
    LoadedBytes second(&load);
    second.Add(20);
    EXPECT_EQ(load.loaded(), 50);
    second = std::move(first);
    EXPECT_EQ(load.loaded(), 50);
  }
  EXPECT_EQ(load.loaded(), 0);
  LoadedBytes nobody;
  nobody.Add(10);
  EXPECT_EQ(load.loaded(), 0);
}

}  // namespace
}  // namespace bottega
