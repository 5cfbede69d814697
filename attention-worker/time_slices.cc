#include "attention-worker/time_slices.h"

#include <algorithm>
#include <chrono>

namespace bottega {
namespace {

// Before the first decode step has been measured.
constexpr Duration kFirstBudget = std::chrono::milliseconds(20);
// A decode step that waited for lost experts says little about the next.
constexpr int kOutlier = 4;
// A step of fewer tokens reads nearly all experts for a few rows each: 96 tokens times 8 experts
// are 12 rows an expert of 64. int8 in 12 layers of full width, 2 threads: steps of 96 and of 128
// tokens run at 0.74 and 0.82 of the speed of 512.
constexpr int32_t kStepTokensLeast = 96;
constexpr Duration kPieceMost = std::chrono::milliseconds(50);
// Tokens or rows that read a matrix together. Where so many take longer than kPieceMost, reading is
// the least of it.
constexpr int64_t kTogetherLeast = 16;

// What less work costs a unit says nothing about more of it.
int64_t Telling(Piece piece) {
  switch (piece) {
    case Piece::kAttend:
      return 1;
    case Piece::kHead:
      return kTogetherLeast;
    case Piece::kProject:
    case Piece::kProjectOut:
    case Piece::kFfn:
      return kStepTokensLeast;
  }
  return 1;
}

}  // namespace

void TimeSlices::DecodeTook(Duration took) {
  if (decode_ == Duration::zero()) decode_ = took;
  decode_ += (std::min(took, kOutlier * decode_) - decode_) / 8;
}

Duration TimeSlices::budget() const {
  if (told_ != Duration::zero()) return told_;
  return decode_ == Duration::zero() ? kFirstBudget : decode_ * 2 / 3;
}

Duration TimeSlices::Predicted(Piece piece, int64_t work) const {
  return Duration(static_cast<int64_t>(cost_[static_cast<int>(piece)] * static_cast<double>(work)));
}

bool TimeSlices::Fits(Piece piece, int64_t work, Time now) const {
  return now == slice_ || now + Predicted(piece, work) <= slice_ + budget();
}

void TimeSlices::BeginPiece(Piece piece, int64_t work, Time now) {
  piece_ = piece;
  work_ = work;
  began_ = now;
}

void TimeSlices::EndPiece(Time now) {
  if (work_ == 0) return;
  double& cost = cost_[static_cast<int>(piece_)];
  if (work_ >= Telling(piece_) || cost == 0) {
    cost = static_cast<double>((now - began_).count()) / static_cast<double>(work_);
  }
  work_ = 0;
}

int32_t TimeSlices::StepTokens(int32_t most) const {
  double layer = 0;
  for (Piece piece : {Piece::kProject, Piece::kProjectOut, Piece::kFfn}) {
    layer += cost_[static_cast<int>(piece)];
  }
  if (layer == 0) return most;
  const double fit = static_cast<double>(budget().count()) / layer;
  return std::clamp(static_cast<int32_t>(std::min(fit, 1e9)), std::min(kStepTokensLeast, most),
                    most);
}

int64_t TimeSlices::Most(Piece piece) const {
  const double cost = cost_[static_cast<int>(piece)];
  if (cost == 0) return kTogetherLeast;
  return std::max(static_cast<int64_t>(static_cast<double>(kPieceMost.count()) / cost),
                  kTogetherLeast);
}

}  // namespace bottega
