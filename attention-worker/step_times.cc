#include "attention-worker/step_times.h"

#include <algorithm>

namespace bottega {
namespace {

// A measurement has faded to a third after so many others.
constexpr double kKeep = 1 - 1.0 / 128;
// A step that waited for something else says no more than this. Nothing makes one faster by chance:
// if it takes half, what was measured before is of another time, of a cold start say.
constexpr double kOutlierTimes = 2;
// While nearly all steps have the same number of tokens: a token more costs half of what one does
// in the mean. Weighs as much as a step that has a token more than the mean.
constexpr double kFirstGuess = 0.5;

}  // namespace

void StepTimes::Observe(int64_t tokens, Duration took) {
  const double expected = At(tokens);
  if (Seconds(took) * kOutlierTimes < expected) *this = {};
  const double seconds =
      weight_ > 0 ? std::min(Seconds(took), kOutlierTimes * expected) : Seconds(took);
  weight_ = kKeep * weight_ + 1;
  const double from_mean = static_cast<double>(tokens) - mean_tokens_;
  mean_tokens_ += from_mean / weight_;
  mean_seconds_ += (seconds - mean_seconds_) / weight_;
  squares_ = kKeep * squares_ + from_mean * (static_cast<double>(tokens) - mean_tokens_);
  products_ = kKeep * products_ + from_mean * (seconds - mean_seconds_);
}

double StepTimes::At(int64_t tokens) const {
  const double seconds = mean_seconds_ + Slope() * (static_cast<double>(tokens) - mean_tokens_);
  return std::max(seconds, mean_seconds_ * kFirstGuess / std::max(1.0, mean_tokens_));
}

double StepTimes::Slope() const {
  const double guess = kFirstGuess * mean_seconds_ / std::max(1.0, mean_tokens_);
  return std::max(0.0, (products_ + guess) / (squares_ + 1));
}

}  // namespace bottega
