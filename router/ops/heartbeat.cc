#include "router/ops/heartbeat.h"

#include <algorithm>
#include <cmath>

#include "core/base/fault_point.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/table_codec.h"
#include "router/ops/quarantine.h"

namespace bottega::router {
namespace {

// More than there are: what is past them is not shown.
constexpr int kTransportKindsMax = 8;
constexpr size_t kTransportKindBytesMax = 16;

void TakeEndpoints(MemberRecord& record, const internal::v1::Heartbeat& heartbeat) {
  record.endpoints.clear();
  if (heartbeat.endpoints_size() > kTransportKindsMax) return;
  for (const auto& entry : heartbeat.endpoints()) {
    if (entry.first.size() <= kTransportKindBytesMax) record.endpoints[entry.first] = entry.second;
  }
}

Duration IntervalOf(const internal::v1::Heartbeat& heartbeat) {
  if (heartbeat.next_ms() == 0) return kHeartbeatInterval;
  return std::clamp<Duration>(std::chrono::milliseconds(heartbeat.next_ms()), kHeartbeatInterval,
                              kIdleHeartbeatInterval);
}

absl::Status TakeHeld(RouterState& state, MemberRecord& record,
                      const internal::v1::Heartbeat& heartbeat) {
  ASSIGN_OR_RETURN(std::vector<ExpertRef> experts,
                   DecodeExperts(heartbeat.held(), state.layers, state.experts));
  std::vector<bool> held(state.keys());
  record.held_order.clear();
  for (const ExpertRef& expert : experts) {
    const ExpertKey key = expert.layer.value * state.experts + expert.expert.value;
    held[key] = true;
    record.held_order.push_back(key);
  }
  if (held == record.held) return absl::OkStatus();
  record.held = std::move(held);
  bool loading = false;
  for (ExpertKey key = 0; key < state.keys(); ++key) {
    loading |= record.assigned[key] && !record.held[key];
  }
  if (record.loading_since && !loading) {
    const Duration took = state.context.loop.Now() - *record.loading_since;
    state.metrics.expert_move_seconds.Observe(Seconds(took));
    record.loading_since.reset();
  }
  state.Touch();
  return absl::OkStatus();
}

}  // namespace

absl::Status TakeHeartbeat(RouterState& state, MemberId id,
                           const internal::v1::Heartbeat& heartbeat) {
  MemberRecord* record = state.Find(id);
  if (record == nullptr) return absl::UnavailableError("no longer a member");
  if (heartbeat.incarnation() != record->member.incarnation.value) {
    return MakeError(Reason::kInvalidValue, "heartbeat of another incarnation");
  }
  RETURN_IF_ERROR(FAULT_POINT(state.context.faults, "router.heartbeat"));
  const Time now = state.context.loop.Now();
  state.metrics.HeartbeatGap(record->member.role)
      .Observe(Seconds(now - record->signs.last_heartbeat));
  record->signs.last_heartbeat = now;
  record->signs.interval = IntervalOf(heartbeat);
  if (record->member.state == MemberState::kSuspect) {
    state.metrics.MemberChanged(record->member.role, "recovered");
    record->member.state = MemberState::kJoining;  // the table writer says what it is
    state.Touch();
  }
  const uint64_t acked =
      heartbeat.acked_term() == state.term ? std::min(heartbeat.acked_epoch(), state.epoch) : 0;
  if (acked > record->acked_epoch) {
    record->acked_epoch = acked;
    // Somebody may wait for this: an expert to be unloaded, a member to leave.
    const bool drains = std::any_of(
        state.members.begin(), state.members.end(),
        [](const auto& entry) { return entry.second.drain_wanted && !entry.second.leave_sent; });
    if (drains || !state.retiring.empty()) state.Touch();
  }
  if (std::isfinite(heartbeat.load())) record->load = heartbeat.load();
  TakeEndpoints(*record, heartbeat);
  TakeReports(state, id, heartbeat);
  if (record->member.role != Role::kExpert) return absl::OkStatus();
  ReviewQuarantine(state, *record, heartbeat);
  if (heartbeat.held_changed()) RETURN_IF_ERROR(TakeHeld(state, *record, heartbeat));
  if (static_cast<size_t>(heartbeat.expert_load_size()) == record->held_order.size() &&
      heartbeat.expert_load_size() > 0) {
    record->expert_load.assign(state.keys(), 0);
    for (int i = 0; i < heartbeat.expert_load_size(); ++i) {
      const float rows = heartbeat.expert_load(i);
      if (std::isfinite(rows) && rows > 0) record->expert_load[record->held_order[i]] = rows;
    }
  }
  return absl::OkStatus();
}

}  // namespace bottega::router
