#pragma once

#include <cstdint>
#include <vector>

#include "core/base/time.h"

namespace bottega {

// What a decode step costs by the number of its tokens, as measured here: a token more reads more
// experts, how much more only the model and the machine know.
class StepCosts {
 public:
  explicit StepCosts(int64_t tokens_max) : costs_(static_cast<size_t>(tokens_max) + 1) {}

  void Observe(int64_t tokens, Duration took);
  // Seconds; 0: nothing is measured yet. Between two measured numbers of tokens a straight line,
  // beyond the last one its cost: what is not known looks cheap, is tried, and is known then.
  double At(int64_t tokens) const;

 private:
  struct Cost {
    double seconds = 0;  // smoothed
    int observed = 0;
  };
  std::vector<Cost> costs_;  // [tokens]
};

}  // namespace bottega
