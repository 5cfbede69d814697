#include "attention-worker/time_slices.h"

#include <gtest/gtest.h>

namespace bottega {
namespace {

using namespace std::chrono_literals;

// A step of one layer in pieces of these times, beginning with a slice at `now`; returns its end.
Time RunPiece(TimeSlices& slices, Piece piece, int64_t work, Duration took, Time now) {
  slices.BeginPiece(piece, work, now);
  slices.EndPiece(now + took);
  return now + took;
}

TEST(TimeSlices, TheBudgetLeavesATokenGapBelowTwoDecodeSteps) {
  TimeSlices slices(0ms);
  EXPECT_GT(slices.budget(), 0ms);
  slices.DecodeTook(45ms);
  EXPECT_EQ(slices.budget(), 30ms);
  for (int i = 0; i < 200; ++i) slices.DecodeTook(90ms);
  EXPECT_NEAR(Seconds(slices.budget()), 0.060, 0.001);
  slices.DecodeTook(10s);  // waited for an expert
  EXPECT_LT(slices.budget(), 90ms);
  EXPECT_EQ(TimeSlices(7ms).budget(), 7ms);
}

TEST(TimeSlices, ASliceEndsBeforeThePieceThatIsTooMuch) {
  TimeSlices slices(10ms);
  Time now{};
  slices.BeginSlice(now);
  now = RunPiece(slices, Piece::kProject, 512, 3ms, now);
  EXPECT_TRUE(slices.Fits(Piece::kProject, 512, now));  // 6 ms by now
  now = RunPiece(slices, Piece::kFfn, 512, 4ms, now);
  EXPECT_TRUE(slices.Fits(Piece::kProject, 512, now));    // 10 ms
  EXPECT_FALSE(slices.Fits(Piece::kFfn, 512, now));       // 11 ms
  EXPECT_TRUE(slices.Fits(Piece::kFfn, 256, now));        // 9 ms
  EXPECT_FALSE(slices.Fits(Piece::kProject, 5120, now));  // 37 ms
  slices.BeginSlice(now);
  EXPECT_TRUE(slices.Fits(Piece::kProject, 5120, now)) << "nothing would get on";
}

TEST(TimeSlices, ALayerOfAStepFitsASlice) {
  TimeSlices slices(20ms);
  EXPECT_EQ(slices.StepTokens(512), 512);  // nothing is known yet
  RunPiece(slices, Piece::kFfn, 512, 40ms, Time{});
  EXPECT_EQ(slices.StepTokens(512), 256);
  RunPiece(slices, Piece::kFfn, 16, 10ms, Time{});  // so few say nothing
  EXPECT_EQ(slices.StepTokens(512), 256);
  RunPiece(slices, Piece::kProject, 512, 60ms, Time{});
  EXPECT_EQ(slices.StepTokens(512), 102);
  RunPiece(slices, Piece::kProject, 512, 600ms, Time{});
  EXPECT_EQ(slices.StepTokens(512), 96) << "smaller ones cost more a token";
  EXPECT_EQ(slices.StepTokens(50), 50);
}

// A gateway that hears nothing for 500 ms takes a worker for dead.
TEST(TimeSlices, APieceNeverKeepsTheLoopForLong) {
  TimeSlices slices(0ms);
  EXPECT_EQ(slices.Most(Piece::kProject), 16) << "carefully at first";
  RunPiece(slices, Piece::kProject, 16, 4ms, Time{});
  EXPECT_EQ(slices.Most(Piece::kProject), 200);
  RunPiece(slices, Piece::kProject, 200, 200ms, Time{});
  EXPECT_EQ(slices.Most(Piece::kProject), 50);
  RunPiece(slices, Piece::kProject, 50, 500ms, Time{});  // so few say nothing
  EXPECT_EQ(slices.Most(Piece::kProject), 50);
  RunPiece(slices, Piece::kProject, 96, 960ms, Time{});
  EXPECT_EQ(slices.Most(Piece::kProject), 16) << "at least";
  RunPiece(slices, Piece::kProject, 96, 1ms, Time{});
  EXPECT_GT(slices.Most(Piece::kProject), 4096);
  EXPECT_EQ(slices.Most(Piece::kHead), 16);
  RunPiece(slices, Piece::kHead, 1, 10ms, Time{});  // the first time
  RunPiece(slices, Piece::kHead, 16, 20ms, Time{});
  EXPECT_EQ(slices.Most(Piece::kHead), 40);
  RunPiece(slices, Piece::kHead, 1, 10ms, Time{});  // which reading the head takes
  EXPECT_EQ(slices.Most(Piece::kHead), 40);
}

}  // namespace
}  // namespace bottega
