#pragma once

#include <optional>

#include "core/base/time.h"

namespace bottega {

// When a member is suspected and when it is given up. Pure; the router asks with its loop's clock.
struct LivenessOptions {
  // Without a heartbeat (sent every 100 ms) for so long.
  Duration suspect_after = std::chrono::milliseconds(300);
  Duration dead_after = std::chrono::seconds(1);
  // A stream that ended is evidence at once; the rest of a moment is for a member whose connection
  // broke and which comes back.
  Duration dead_after_stream_end = std::chrono::milliseconds(200);
};

struct LifeSigns {
  Time last_heartbeat{};
  std::optional<Time> stream_ended;  // empty while its session is open
};

enum class Liveness { kAlive, kSuspect, kDead };

Liveness Judge(const LifeSigns& signs, Time now, const LivenessOptions& options);
// When Judge may next answer otherwise without a new sign; kNever once dead.
Time NextJudgement(const LifeSigns& signs, Time now, const LivenessOptions& options);

}  // namespace bottega
