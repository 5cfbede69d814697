#include "router/background/pulse.h"

#include "router/ops/watch.h"

namespace bottega::router {
namespace {

constexpr Duration kInterval = std::chrono::milliseconds(200);
constexpr int kTurnsPerPulse = 2;  // a pulse well within RouterSessionOptions::silence_max

}  // namespace

Task<void> RunPulse(std::shared_ptr<RouterState> state) {
  internal::v1::RouterMessage pulse;
  pulse.mutable_pulse();
  Loop& loop = state->context.loop;
  for (int turn = 0; !state->stopping; ++turn) {
    if (!state->MayWrite()) {
      EndTerm(*state, "this router stood still");
      co_return;
    }
    state->awake_until = loop.Now() + state->config.liveness.dead_after / 2;
    if (turn % kTurnsPerPulse == 0) {
      for (auto& [id, record] : state->members) SendOrEnd(record, pulse);
    }
    co_await loop.Sleep(kInterval);
  }
}

}  // namespace bottega::router
