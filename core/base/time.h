#pragma once

#include <chrono>
#include <cstdint>

namespace bottega {

using Duration = std::chrono::nanoseconds;
// As metrics have it.
inline double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }
// As cost models have it.
inline double Microseconds(Duration duration) { return Seconds(duration) * 1e6; }

// The loop's time: monotonic in a real loop, virtual in a simulated one. There is no now() here on
// purpose: ask the Loop, so that the fabric can own the clock.
struct LoopClock {
  using rep = int64_t;
  using period = std::nano;
  using duration = Duration;
  using time_point = std::chrono::time_point<LoopClock>;
  static constexpr bool is_steady = true;
};
using Time = LoopClock::time_point;
inline constexpr Time kNever = Time::max();

}  // namespace bottega
