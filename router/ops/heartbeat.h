#pragma once

#include "absl/status/status.h"
#include "router/state.h"

namespace bottega::router {

// A member is alive, reads a table, holds experts. An error ends its session: it speaks nonsense or
// is of another incarnation.
absl::Status TakeHeartbeat(RouterState& state, MemberId id,
                           const internal::v1::Heartbeat& heartbeat);

}  // namespace bottega::router
