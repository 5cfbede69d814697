#pragma once

#include "router/state.h"

namespace bottega::router {

// Busiest expert worker over the mean, in the worst layer, by smoothed load and the wanted
// replicas (a replicated expert's load counts in equal parts); 1 without measurements.
double LoadImbalance(const RouterState& state);
// Mixes what the workers last reported into RouterState::load. A dead worker's share fades with
// time, while those that took it over report it.
void SmoothLoad(RouterState& state);
// Smooths each second. Now and then: places anew if measured load has become uneven.
Task<void> RunRebalancer(std::shared_ptr<RouterState> state);

}  // namespace bottega::router
