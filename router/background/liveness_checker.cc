#include "router/background/liveness_checker.h"

#include <algorithm>

namespace bottega::router {

void JudgeMembers(RouterState& state) {
  if (!state.MayWrite()) return;  // silence that one slept through proves nothing
  const Time now = state.context.loop.Now();
  std::vector<MemberId> dead;
  for (auto& [id, record] : state.members) {
    switch (Judge(record.signs, now, state.config.liveness)) {
      case Liveness::kAlive:
        break;
      case Liveness::kSuspect:
        if (record.member.state != MemberState::kSuspect) {
          record.member.state = MemberState::kSuspect;
          state.metrics.MemberChanged(record.member.role, "suspected");
          state.Touch();
        }
        break;
      case Liveness::kDead:
        dead.push_back(id);
        break;
    }
  }
  for (MemberId id : dead) RemoveMember(state, id, "died");
}

Task<void> RunLivenessChecker(std::shared_ptr<RouterState> state) {
  while (!state->stopping) {
    JudgeMembers(*state);
    const Time now = state->context.loop.Now();
    // A member that comes meanwhile is fresh for suspect_after.
    Time next = now + state->config.liveness.suspect_after;
    for (const auto& [id, record] : state->members) {
      next = std::min(next, NextJudgement(record.signs, now, state->config.liveness));
    }
    (void)co_await state->judge.Wait(next);
  }
}

}  // namespace bottega::router
