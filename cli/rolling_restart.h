#pragma once

#include "absl/status/status.h"
#include "cli/supervisor.h"

namespace bottega {

// Restarts every process of a local cluster, one at a time, while it serves: routers, expert
// workers, attention workers, gateways, so that each is joined by members that are not newer than
// itself. Router and workers are told to end (they hand over or drain first) and started again in
// their place; a gateway's successor listens before it ends. The next one's turn comes when the
// last is ready. Stops at the first that does not come back, and leaves the rest as it is; stops
// also when `*stopping`.
Task<absl::Status> RollCluster(Loop* loop, Supervisor* supervisor, const bool* stopping);

}  // namespace bottega
