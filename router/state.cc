#include "router/state.h"

#include <fmt/format.h>

#include <string>

namespace bottega::router {

RouterState::RouterState(ServiceContext& context, RouterConfig config_in, Metrics& metrics,
                         uint64_t term)
    : context(context),
      config(std::move(config_in)),
      metrics(metrics),
      next_id(static_cast<uint32_t>(term % 1000 * 1000 + 1)),
      term(term),
      started(context.loop.Now()),
      changed(context.loop),
      judge(context.loop),
      ended(context.loop) {}

void RouterState::PlaceWithin(Duration delay, MoveReason why) {
  place_why = why;
  const Time now = context.loop.Now();
  if (delay == Duration::zero()) {
    place_at = now;
  } else if (!place_at) {
    place_asked = now;
    place_at = now + delay;
  } else if (*place_at > now) {
    // Each newcomer gives the next one time, but a crash loop must not put it off for ever.
    place_at = std::min(now + delay, place_asked + 10 * delay);
  }
  place_at = std::max(*place_at, place_not_before);
  Touch();
}

void RemoveMember(RouterState& state, MemberId id, const char* change) {
  MemberRecord* record = state.Find(id);
  if (record == nullptr) return;
  const Role role = record->member.role;
  state.context.log.Info(fmt::format("{} {} {}", Name(role), record->member.name, change));
  state.metrics.MemberChanged(role, change);
  if (record->stream != nullptr) record->stream->Close(absl::UnavailableError(change));
  state.members.erase(id);
  std::erase_if(state.retiring, [&](const auto& entry) { return entry.first.second == id; });
  if (role == Role::kExpert) {
    state.PlaceWithin(Duration::zero(), MoveReason::kDeath);
  } else {
    state.Touch();  // readers that are gone acknowledge nothing more
  }
  for (const auto& [other_id, other] : state.members) {
    if (other.member.role == Role::kExpert || other.member.role == Role::kAttention) return;
  }
  // The last worker is gone: the next one says what the model is.
  state.model_digest.clear();
  state.numerics_id.clear();
}

void EndTerm(RouterState& state, std::string_view why) {
  if (state.stopping) return;
  state.stopping = true;
  state.context.log.Info(
      fmt::format("writes no more in term {}: {}", state.term, std::string(why)));
  for (auto& [id, record] : state.members) {
    if (record.stream != nullptr) {
      record.stream->Close(absl::UnavailableError("this router writes no more"));
    }
  }
  state.metrics.Clear();
  for (Slot* slot : {&state.changed, &state.judge, &state.ended}) slot->Wake();
}

}  // namespace bottega::router
