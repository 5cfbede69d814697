#include "router/leadership.h"

#include <fmt/format.h>

#include "router/background/liveness_checker.h"
#include "router/background/pulse.h"
#include "router/background/rebalancer.h"
#include "router/table_writer.h"

namespace bottega::router {
namespace {

void Begin(Leadership& self, uint64_t term, Time asked) {
  self.state = std::make_shared<RouterState>(self.context, self.config, self.metrics, term);
  self.state->lease_until = asked + self.config.lease_ttl;
  self.metrics.is_leader.Set(1);
  self.context.log.Info(fmt::format("writes the table, term {}", term));
  Loop& loop = self.context.loop;
  loop.Spawn(self.context.node, RunPulse(self.state));
  loop.Spawn(self.context.node, RunTableWriter(self.state));
  loop.Spawn(self.context.node, RunLivenessChecker(self.state));
  loop.Spawn(self.context.node, RunRebalancer(self.state));
}

// Prolongs the lease until the state ends. A store that does not answer is asked again; the lease
// runs out by itself.
Task<void> Hold(std::shared_ptr<Leadership> self, std::shared_ptr<RouterState> state) {
  Duration pause = self->config.lease_ttl / 3;
  while (state->MayWrite()) {
    const Time next = self->context.loop.Now() + pause;
    absl::Status woken = co_await state->ended.Wait(next);
    if (woken.ok() || !state->MayWrite()) break;
    const Time asked = self->context.loop.Now();
    absl::Status renewed = co_await self->lease->Renew();
    pause = self->config.lease_ttl / (renewed.ok() ? 3 : 10);
    if (renewed.ok()) {
      state->lease_until = asked + self->config.lease_ttl;
    } else if (absl::IsAborted(renewed)) {
      EndTerm(*state, std::string(renewed.message()));
    } else {
      self->context.log.Warning(
          fmt::format("the lease is not renewed: {}", std::string(renewed.message())));
    }
  }
  EndTerm(*state, "the lease has run out");  // unless it ended for another reason
}

}  // namespace

Leadership::Leadership(ServiceContext& context, RouterConfig config_in,
                       std::unique_ptr<Lease> lease_in)
    : context(context),
      config(std::move(config_in)),
      lease(std::move(lease_in)),
      metrics(context.metrics),
      wake(context.loop) {}

Task<void> RunLeadership(std::shared_ptr<Leadership> self) {
  Loop& loop = self->context.loop;
  uint64_t above = 0;
  bool told = false;  // one line per trouble
  while (!self->stopping) {
    const Time asked = loop.Now();
    absl::StatusOr<std::optional<uint64_t>> term = co_await self->lease->TryAcquire(above);
    if (!term.ok() && !std::exchange(told, true)) {
      self->context.log.Warning(fmt::format("no lease: {}", std::string(term.status().message())));
    }
    if (term.ok()) self->lease_answers = true;
    if (term.ok() && term->has_value() && !self->stopping) {
      told = false;
      Begin(*self, **term, asked);
      std::shared_ptr<RouterState> state = self->state;
      co_await Hold(self, state);
      above = std::max(state->term, state->superseded_by);
      self->state.reset();
      co_await self->lease->Release();
      continue;
    }
    const Time again = loop.Now() + self->config.lease_ttl / 10;
    (void)co_await self->wake.Wait(again);
  }
  co_await self->lease->Release();
  self->released = true;
}

}  // namespace bottega::router
