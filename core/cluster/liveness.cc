#include "core/cluster/liveness.h"

#include <algorithm>

namespace bottega {
namespace {

Time SuspectAt(const LifeSigns& signs, const LivenessOptions& options) {
  const Time silent = signs.last_heartbeat + std::max(options.suspect_after, 3 * signs.interval);
  return signs.stream_ended ? std::min(silent, *signs.stream_ended) : silent;
}

Time DeadAt(const LifeSigns& signs, const LivenessOptions& options) {
  const Time silent = signs.last_heartbeat + std::max(options.dead_after, 4 * signs.interval);
  return signs.stream_ended ? std::min(silent, *signs.stream_ended + options.dead_after_stream_end)
                            : silent;
}

}  // namespace

Liveness Judge(const LifeSigns& signs, Time now, const LivenessOptions& options) {
  if (now >= DeadAt(signs, options)) return Liveness::kDead;
  if (now >= SuspectAt(signs, options)) return Liveness::kSuspect;
  return Liveness::kAlive;
}

Time NextJudgement(const LifeSigns& signs, Time now, const LivenessOptions& options) {
  switch (Judge(signs, now, options)) {
    case Liveness::kAlive:
      return SuspectAt(signs, options);
    case Liveness::kSuspect:
      return DeadAt(signs, options);
    case Liveness::kDead:
      return kNever;
  }
  return kNever;
}

}  // namespace bottega
