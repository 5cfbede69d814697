#include "core/base/fault_point.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <span>

namespace bottega {
namespace {

int Errors(FaultPoints& faults, int hits) {
  int errors = 0;
  for (int i = 0; i < hits; ++i) errors += FAULT_POINT(faults, "a.b").ok() ? 0 : 1;
  return errors;
}

TEST(FaultPoints, UnarmedDoesNothing) {
  FaultPoints faults;
  EXPECT_EQ(Errors(faults, 10), 0);
  EXPECT_EQ(faults.hits("a.b"), 0u);
}

TEST(FaultPoints, ActsOnTheNthHitOnly) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("a.b=error:no luck@3").ok());
  EXPECT_TRUE(FAULT_POINT(faults, "a.b").ok());
  EXPECT_TRUE(FAULT_POINT(faults, "a.b").ok());
  EXPECT_EQ(FAULT_POINT(faults, "a.b").message(), "no luck");
  EXPECT_EQ(Errors(faults, 10), 0);
}

TEST(FaultPoints, ActsFromAHitOn) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("x=error,a.b=error@4+").ok());
  EXPECT_EQ(Errors(faults, 10), 7);
}

TEST(FaultPoints, AProbabilityRepeatsWithItsSeed) {
  FaultPoints a, b, c;
  ASSERT_TRUE(a.Arm("a.b=error@p0.25/7").ok());
  ASSERT_TRUE(b.Arm("a.b=error@p0.25/7").ok());
  ASSERT_TRUE(c.Arm("a.b=error@p0.25/8").ok());
  std::string history_a, history_b, history_c;
  for (int i = 0; i < 1000; ++i) {
    history_a += a.Hit("a.b").ok() ? '.' : 'x';
    history_b += b.Hit("a.b").ok() ? '.' : 'x';
    history_c += c.Hit("a.b").ok() ? '.' : 'x';
  }
  EXPECT_EQ(history_a, history_b);
  EXPECT_NE(history_a, history_c);
  const auto hits = std::count(history_a.begin(), history_a.end(), 'x');
  EXPECT_GT(hits, 180);
  EXPECT_LT(hits, 320);
}

TEST(FaultPoints, CorruptFlipsOneBit) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("a.b=corrupt@2").ok());
  std::array<std::byte, 64> bytes{};
  FAULT_CORRUPT(faults, "a.b", absl::MakeSpan(bytes));
  EXPECT_EQ(bytes, (std::array<std::byte, 64>{}));
  FAULT_CORRUPT(faults, "a.b", absl::MakeSpan(bytes));
  int bits = 0;
  for (std::byte b : bytes) bits += std::popcount(static_cast<uint8_t>(b));
  EXPECT_EQ(bits, 1);
}

TEST(FaultPoints, CorruptMakesNan) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("a.b=corrupt:ones").ok());
  std::array<float, 3> values{};
  const auto bytes = std::as_writable_bytes(std::span(values));
  FAULT_CORRUPT(faults, "a.b", absl::MakeSpan(bytes.data(), bytes.size()));
  EXPECT_TRUE(std::isnan(values[0]) && std::isnan(values[1]));
  EXPECT_EQ(values[2], 0);
  EXPECT_EQ(faults.Hits(), (std::map<std::string, uint64_t>{{"a.b", 1}}));
}

TEST(FaultPointsDeathTest, EndsTheProcess) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("a=exit:7,b=crash,c=abort").ok());
  EXPECT_EXIT((void)faults.Hit("a"), testing::ExitedWithCode(7), "");
  EXPECT_EXIT((void)faults.Hit("b"), testing::KilledBySignal(SIGKILL), "");
  EXPECT_EXIT((void)faults.Hit("c"), testing::KilledBySignal(SIGABRT), "");
}

TEST(FaultPoints, ActsOnOneValueOnly) {
  FaultPoints faults;
  ASSERT_TRUE(faults.Arm("a=error:517,b=crash:3").ok());
  EXPECT_TRUE(faults.HitIf("a", 516).ok());
  EXPECT_FALSE(faults.HitIf("a", 517).ok());
  EXPECT_EQ(faults.hits("a"), 1u);
  // A simulated process has another end.
  int crashes = 0;
  faults.set_on_crash([&] { ++crashes; });
  EXPECT_TRUE(faults.HitIf("b", 2).ok());
  EXPECT_TRUE(absl::IsAborted(faults.HitIf("b", 3)));
  EXPECT_EQ(crashes, 1);
}

TEST(FaultPoints, RefusesWhatItDoesNotUnderstand) {
  for (const char* plan :
       {"a", "=error", "a=burn", "a=error@", "a=error@0", "a=error@x", "a=error@p2",
        "a=error@p0.1/x", "a=sleep", "a=sleep:3", "a=exit:x", "a=corrupt:all"}) {
    FaultPoints faults;
    EXPECT_TRUE(absl::IsInvalidArgument(faults.Arm(std::string("a.b=error,") + plan))) << plan;
    EXPECT_EQ(Errors(faults, 3), 0) << plan;
  }
}

}  // namespace
}  // namespace bottega
