#pragma once

#include <cstdint>

#include "core/base/time.h"

namespace bottega {

// What a decode step takes by the number of its tokens, as measured here: a token more reads more
// experts, how much more only the model and the machine know. A straight line through the steps of
// late, which fade: single numbers of tokens are too seldom, and too noisy, for a mean of their
// own.
class StepTimes {
 public:
  void Observe(int64_t tokens, Duration took);
  // Seconds; 0: nothing is measured yet.
  double At(int64_t tokens) const;

 private:
  double Slope() const;  // seconds a token

  double weight_ = 0;                          // of all observations, each faded
  double mean_tokens_ = 0, mean_seconds_ = 0;  // weighted
  double squares_ = 0, products_ = 0;          // sums of deviations: tokens², tokens × seconds
};

}  // namespace bottega
