#include "gateway/drain_rate.h"

#include <gtest/gtest.h>

#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

using namespace std::chrono_literals;

class DrainRateTest : public testing::Test {
 protected:
  // `per_second` leave a queue that stays at `waiting`, for `seconds`.
  void Drain(int per_second, int seconds, size_t waiting) {
    for (int i = 0; i < per_second * seconds; ++i) {
      now_ += Duration(1s) / per_second;
      rate_.Observe(now_, waiting);
      rate_.CountLeft();
    }
  }
  double Seconds(size_t waiting) const {
    return std::chrono::duration<double>(rate_.TimeToDrain(waiting)).count();
  }
  Time now_{};
  DrainRate rate_{now_};
};

TEST_F(DrainRateTest, WaitingOverRate) {
  EXPECT_EQ(rate_.TimeToDrain(128), 1s);  // nothing is known
  Drain(10, 20, 100);
  EXPECT_NEAR(Seconds(100), 10, 0.5);
  EXPECT_NEAR(Seconds(40), 4, 0.2);
  EXPECT_EQ(rate_.TimeToDrain(1), 1s);
}

TEST_F(DrainRateTest, ANewRateReplacesTheOld) {
  Drain(10, 20, 100);
  Drain(50, 20, 100);
  EXPECT_NEAR(Seconds(100), 2, 0.1);
}

TEST_F(DrainRateTest, EmptyTimesDoNotCount) {
  Drain(10, 20, 100);
  now_ += 1h;
  rate_.Observe(now_, 0);
  EXPECT_NEAR(Seconds(100), 10, 0.5);
}

TEST_F(DrainRateTest, AQueueThatStandsIsSaidToTakeLong) {
  Drain(10, 20, 100);
  now_ += 10min;
  rate_.Observe(now_, 100);
  EXPECT_EQ(rate_.TimeToDrain(100), DrainRate::kMost);
}

TEST(RetryAfter, TravelsWithTheRefusal) {
  const absl::Status refusal = MakeError(Reason::kQueueFull, "full");
  EXPECT_EQ(RetryAfterOf(refusal), 1s);
  EXPECT_EQ(RetryAfterOf(WithRetryAfter(refusal, 2500us)), 3ms);
  EXPECT_EQ(ReasonOf(WithRetryAfter(refusal, 7s)), Reason::kQueueFull);
}

}  // namespace
}  // namespace bottega::gateway
