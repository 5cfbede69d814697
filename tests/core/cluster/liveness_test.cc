#include "core/cluster/liveness.h"

#include <gtest/gtest.h>

namespace bottega {
namespace {

using namespace std::chrono_literals;

TEST(Liveness, SilenceIsSuspectThenDead) {
  const LivenessOptions options;
  const LifeSigns signs{.last_heartbeat = Time(10s), .stream_ended = {}, .interval = 100ms};
  EXPECT_EQ(Judge(signs, Time(10s), options), Liveness::kAlive);
  EXPECT_EQ(Judge(signs, Time(10s + 299ms), options), Liveness::kAlive);
  EXPECT_EQ(Judge(signs, Time(10s + 300ms), options), Liveness::kSuspect);
  EXPECT_EQ(Judge(signs, Time(10s + 999ms), options), Liveness::kSuspect);
  EXPECT_EQ(Judge(signs, Time(11s), options), Liveness::kDead);
}

TEST(Liveness, AnIdleMemberMayBeSilentForLonger) {
  const LivenessOptions options;
  const LifeSigns signs{.last_heartbeat = Time(10s), .stream_ended = {}, .interval = 250ms};
  EXPECT_EQ(Judge(signs, Time(10s + 749ms), options), Liveness::kAlive);
  EXPECT_EQ(Judge(signs, Time(10s + 750ms), options), Liveness::kSuspect);
  EXPECT_EQ(Judge(signs, Time(10s + 999ms), options), Liveness::kSuspect);
  EXPECT_EQ(Judge(signs, Time(11s), options), Liveness::kDead);
}

TEST(Liveness, AnEndedStreamCountsAtOnce) {
  const LivenessOptions options;
  LifeSigns signs{.last_heartbeat = Time(10s), .stream_ended = Time(10s + 50ms), .interval = 100ms};
  EXPECT_EQ(Judge(signs, Time(10s + 49ms), options), Liveness::kAlive);
  EXPECT_EQ(Judge(signs, Time(10s + 50ms), options), Liveness::kSuspect);
  EXPECT_EQ(Judge(signs, Time(10s + 250ms), options), Liveness::kDead);
  signs.stream_ended = Time(10s + 950ms);  // silence is over sooner
  EXPECT_EQ(Judge(signs, Time(11s), options), Liveness::kDead);
}

TEST(Liveness, NextJudgementIsTheNextChange) {
  const LivenessOptions options;
  for (const LifeSigns& signs :
       {LifeSigns{.last_heartbeat = Time(10s), .stream_ended = {}, .interval = 100ms},
        LifeSigns{.last_heartbeat = Time(10s), .stream_ended = Time(10s), .interval = 100ms}}) {
    Time now = Time(10s);
    while (Judge(signs, now, options) != Liveness::kDead) {
      const Time next = NextJudgement(signs, now, options);
      ASSERT_GT(next, now);
      EXPECT_EQ(Judge(signs, next - 1ns, options), Judge(signs, now, options));
      EXPECT_NE(Judge(signs, next, options), Judge(signs, now, options));
      now = next;
    }
    EXPECT_EQ(NextJudgement(signs, now, options), kNever);
  }
}

}  // namespace
}  // namespace bottega
