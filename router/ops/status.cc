#include "router/ops/status.h"

#include <algorithm>

#include "core/service/table_codec.h"

namespace bottega::router {
namespace {

// Not the smoothed load that placement goes by: who looks wants to see what happens now.
void AddExpertRows(const RouterState& state, internal::v1::StatusReply& reply) {
  std::vector<float> rows;
  for (const auto& [id, record] : state.members) {
    if (record.expert_load.size() != state.keys()) continue;
    rows.resize(state.keys());
    for (size_t key = 0; key < rows.size(); ++key) rows[key] += record.expert_load[key];
  }
  reply.mutable_expert_rows()->Add(rows.begin(), rows.end());
}

}  // namespace

internal::v1::StatusReply Status(const Leadership& leadership) {
  internal::v1::StatusReply reply;
  reply.set_router_incarnation(leadership.context.incarnation.value);
  reply.set_router_name(leadership.context.name);
  reply.set_standby(leadership.state == nullptr);
  if (leadership.state == nullptr) return reply;
  const RouterState& state = *leadership.state;
  if (state.table != nullptr) *reply.mutable_table() = EncodeTable(*state.table);
  const Time now = state.context.loop.Now();
  for (const auto& [id, record] : state.members) {
    auto* member = reply.add_members();
    member->set_id(id.value);
    member->set_heartbeat_age_ms(
        std::chrono::duration_cast<std::chrono::milliseconds>(now - record.signs.last_heartbeat)
            .count());
    member->set_acked_epoch(record.acked_epoch);
    member->set_held(std::count(record.held.begin(), record.held.end(), true));
    member->set_assigned(std::count(record.assigned.begin(), record.assigned.end(), true));
    member->set_capacity(record.capacity);
    member->set_load(record.load);
    member->mutable_endpoints()->insert(record.endpoints.begin(), record.endpoints.end());
  }
  AddExpertRows(state, reply);
  return reply;
}

}  // namespace bottega::router
