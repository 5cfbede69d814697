#pragma once

#include "router/state.h"

namespace bottega::router {

// Suspects and buries: silent members by the clock, members whose stream ended at once.
void JudgeMembers(RouterState& state);
// JudgeMembers whenever its answer may have changed.
Task<void> RunLivenessChecker(std::shared_ptr<RouterState> state);

}  // namespace bottega::router
