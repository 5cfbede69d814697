#include "router/background/rebalancer.h"

#include "router/table_writer.h"

namespace bottega::router {
namespace {

// Workers report every two seconds; what is smoothed is that of about the last ten.
constexpr Duration kLoadInterval = std::chrono::seconds(1);
constexpr double kNewest = 0.1;

}  // namespace

// Not of rows as they were routed: attention workers choose among replicas by what is queued at
// the moment, which moving experts does not change.
double LoadImbalance(const RouterState& state) {
  return Imbalance(MakePlacementInput(state), state.wanted);
}

void SmoothLoad(RouterState& state) {
  state.load.resize(state.keys());
  for (double& rows : state.load) rows *= 1 - kNewest;
  for (const auto& [id, record] : state.members) {
    if (record.expert_load.size() != state.load.size()) continue;
    for (size_t key = 0; key < state.load.size(); ++key) {
      state.load[key] += kNewest * record.expert_load[key];
    }
  }
}

Task<void> RunRebalancer(std::shared_ptr<RouterState> state) {
  Loop& loop = state->context.loop;
  Time due = loop.Now() + state->config.rebalance_interval;
  while (!state->stopping) {
    co_await loop.Sleep(kLoadInterval);
    if (!state->MayWrite()) continue;
    SmoothLoad(*state);
    if (loop.Now() < due) continue;
    due = loop.Now() + state->config.rebalance_interval;
    const double imbalance = LoadImbalance(*state);
    state->metrics.load_imbalance_ratio.Set(imbalance);
    if (imbalance > state->config.rebalance_threshold) {
      state->PlaceWithin(Duration::zero(), MoveReason::kLoad);
    }
  }
}

}  // namespace bottega::router
