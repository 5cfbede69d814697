#pragma once

#include "router/state.h"

namespace bottega::router {

// Suspects and buries: silent members by the clock, members whose stream ended at once.
void JudgeMembers(RouterState& state);
// JudgeMembers each liveness_interval.
Task<void> RunLivenessChecker(std::shared_ptr<RouterState> state);

}  // namespace bottega::router
