#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "core/base/time.h"

namespace bottega::gateway {

// How fast a queue empties, measured while somebody waits in it: times of an empty queue say
// nothing about how long a full one takes. Old times fade with a constant of kMemory.
class DrainRate {
 public:
  explicit DrainRate(Time now) : since_(now) {}

  // Before `waiting`, the number in the queue since the last call, changes.
  void Observe(Time now, size_t waiting);
  // One left the queue. After Observe.
  void CountLeft() { left_ += 1; }

  // After which time the `waiting` requests of now will have left, and a new one has a chance:
  // between kLeast and kMost, kLeast while nothing has been measured.
  Duration TimeToDrain(size_t waiting) const;

  static constexpr Duration kMemory = std::chrono::seconds(5);
  static constexpr Duration kLeast = std::chrono::seconds(1);
  static constexpr Duration kMost = std::chrono::seconds(60);

 private:
  Time since_;
  double busy_seconds_ = 0;  // faded, as left_ is
  double left_ = 0;
};

// A refusal that says when to come again, for Retry-After.
absl::Status WithRetryAfter(absl::Status refusal, Duration wait);
// What it says; DrainRate::kLeast if it says nothing.
Duration RetryAfterOf(const absl::Status& refusal);

}  // namespace bottega::gateway
