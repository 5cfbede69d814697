#pragma once

#include "router/state.h"

namespace bottega::router {

// Tells the members that their router turns, and the router that it did not stand still.
Task<void> RunPulse(std::shared_ptr<RouterState> state);

}  // namespace bottega::router
