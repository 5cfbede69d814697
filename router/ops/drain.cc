#include "router/ops/drain.h"

#include <fmt/format.h>

#include "core/base/reason.h"

namespace bottega::router {

absl::Status StartDrain(RouterState& state, MemberId id, const internal::v1::Drain& request) {
  MemberRecord* record = state.Find(id);
  if (record == nullptr) return absl::UnavailableError("no longer a member");
  if (request.incarnation() != record->member.incarnation.value) {
    return MakeError(Reason::kInvalidValue, "drain of another incarnation");
  }
  if (record->drain_wanted) return absl::OkStatus();
  record->drain_wanted = true;
  state.context.log.Info(
      fmt::format("{} {} drains", Name(record->member.role), record->member.name));
  if (record->member.role == Role::kExpert) {
    state.PlaceWithin(Duration::zero(), MoveReason::kDrain);
  } else {
    state.Touch();
  }
  return absl::OkStatus();
}

}  // namespace bottega::router
