#include "router/state.h"

#include <fmt/format.h>

#include <chrono>

namespace bottega::router {

RouterState::RouterState(ServiceContext& context, RouterConfig config_in)
    : context(context),
      config(std::move(config_in)),
      metrics(context.metrics),
      term(config.term),
      started(context.loop.Now()),
      changed(context.loop),
      judge(context.loop) {
  if (term == 0) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    term =
        static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
  }
}

void RouterState::PlaceWithin(Duration delay) {
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
    state.PlaceWithin(Duration::zero());
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

}  // namespace bottega::router
