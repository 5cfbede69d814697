#pragma once

#include "absl/status/status.h"
#include "router/state.h"

namespace bottega::router {

// A member asks to leave. Its experts are placed elsewhere first; it serves on until the others are
// ready and every attention worker knows; then it gets Leave.
absl::Status StartDrain(RouterState& state, MemberId id, const internal::v1::Drain& request);

}  // namespace bottega::router
