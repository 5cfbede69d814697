#pragma once

#include <optional>

#include "core/base/time.h"

namespace bottega {

// How often a member says that it lives: while it has work, and while it has none.
inline constexpr Duration kHeartbeatInterval = std::chrono::milliseconds(100);
inline constexpr Duration kIdleHeartbeatInterval = std::chrono::milliseconds(250);

// When a member is suspected and when it is given up. Pure; the router asks with its loop's clock.
struct LivenessOptions {
  // Without a heartbeat for so long; of a member that said when its next one comes, no less than
  // three (suspect) and four (dead) of its intervals.
  Duration suspect_after = std::chrono::milliseconds(300);
  Duration dead_after = std::chrono::seconds(1);
  // A stream that ended is evidence at once; the rest of a moment is for a member whose connection
  // broke and which comes back.
  Duration dead_after_stream_end = std::chrono::milliseconds(200);
};

struct LifeSigns {
  Time last_heartbeat{};
  std::optional<Time> stream_ended;        // empty while its session is open
  Duration interval = kHeartbeatInterval;  // until the next heartbeat, as the last one said
};

enum class Liveness { kAlive, kSuspect, kDead };

Liveness Judge(const LifeSigns& signs, Time now, const LivenessOptions& options);
// When Judge may next answer otherwise without a new sign; kNever once dead.
Time NextJudgement(const LifeSigns& signs, Time now, const LivenessOptions& options);

}  // namespace bottega
