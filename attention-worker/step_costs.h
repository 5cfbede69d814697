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
  // beyond the last one the line of the first and the last.
  double At(int64_t tokens) const;
  // The largest number of tokens that is measured; 0: none.
  int64_t KnownTo() const;

 private:
  struct Cost {
    double seconds = 0;  // smoothed
    int observed = 0;
    int64_t last = 0;  // observation
  };
  // A measurement that nothing has confirmed for long may be of another time: of a cold start, of a
  // busy machine. It counts as none, or it would keep others from ever being made.
  bool Known(int64_t tokens) const;
  int64_t Last() const { return static_cast<int64_t>(costs_.size()) - 1; }

  std::vector<Cost> costs_;  // [tokens]
  int64_t observations_ = 0;
};

}  // namespace bottega
