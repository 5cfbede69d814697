#include "router/background/rebalancer.h"

#include <algorithm>

namespace bottega::router {
namespace {

// Workers report every two seconds; what is smoothed is that of about the last ten.
constexpr Duration kLoadInterval = std::chrono::seconds(1);
constexpr double kNewest = 0.1;

}  // namespace

double LoadImbalance(const RouterState& state) {
  size_t workers = 0;
  for (const auto& [id, record] : state.members) {
    workers += record.member.role == Role::kExpert && !record.drain_wanted;
  }
  double worst = 1;
  for (uint32_t layer = 0; layer < state.layers && workers > 0; ++layer) {
    double total = 0, busiest = 0;
    for (const auto& [id, record] : state.members) {
      if (record.expert_load.empty()) continue;
      double rows = 0;
      for (uint32_t expert = 0; expert < state.experts; ++expert) {
        rows += record.expert_load[size_t{layer} * state.experts + expert];
      }
      total += rows;
      busiest = std::max(busiest, rows);
    }
    if (total > 0) worst = std::max(worst, busiest * static_cast<double>(workers) / total);
  }
  return worst;
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
    if (imbalance > state->config.rebalance_threshold) state->PlaceWithin(Duration::zero());
  }
}

}  // namespace bottega::router
