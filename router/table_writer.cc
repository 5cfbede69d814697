#include "router/table_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "router/ops/watch.h"

namespace bottega::router {
namespace {

namespace wire = internal::v1;

bool SameContent(const ClusterTable& a, const ClusterTable& b) {
  const auto same_member = [](const Member& x, const Member& y) {
    return x.id == y.id && x.incarnation == y.incarnation && x.state == y.state &&
           x.control_address == y.control_address && x.admin_address == y.admin_address &&
           x.speed == y.speed && x.device == y.device && x.numerics_id == y.numerics_id;
  };
  return a.term == b.term && a.model_digest == b.model_digest && a.layers == b.layers &&
         a.experts == b.experts && a.dense_layers == b.dense_layers && a.replicas == b.replicas &&
         std::equal(a.members.begin(), a.members.end(), b.members.begin(), b.members.end(),
                    same_member);
}

// Expert workers that may be given work: alive, trusted and not about to leave.
bool MayHold(const MemberRecord& record) {
  return record.member.role == Role::kExpert && !record.drain_wanted && !record.quarantine;
}

// The smoothed load of each expert and half of their mean: an expert that was not asked for lately
// weighs something too, or a worker that joins would be given nothing while a few are hot. Empty
// while nothing was measured.
std::vector<double> ExpectedLoad(const RouterState& state) {
  std::vector<double> load = state.load;
  const double total = std::accumulate(load.begin(), load.end(), 0.0);
  if (load.size() != state.keys() || total <= 0) return {};
  const double least = 0.5 * total / static_cast<double>(load.size());
  for (double& rows : load) rows += least;
  return load;
}

// What was wanted stays; only where that is too little counts what is held besides.
std::vector<MemberId> HoldersToKeep(const RouterState& state, ExpertKey key) {
  std::vector<MemberId> keep;
  if (key < state.wanted.size()) {
    for (MemberId id : state.wanted[key]) {
      const auto record = state.members.find(id);
      if (record != state.members.end() && MayHold(record->second)) keep.push_back(id);
    }
  }
  for (const auto& [id, record] : state.members) {
    if (keep.size() >= state.config.replication) break;
    if (MayHold(record) && record.held[key] &&
        std::find(keep.begin(), keep.end(), id) == keep.end()) {
      keep.push_back(id);
    }
  }
  return keep;
}

void PlaceNow(RouterState& state) {
  state.place_at.reset();
  PlacementInput input = MakePlacementInput(state);
  state.why_wanted.resize(state.keys());
  if (input.members.empty()) {
    state.wanted.assign(state.keys(), {});
    return;
  }
  for (ExpertKey key = 0; key < state.keys(); ++key) {
    input.previous.push_back(HoldersToKeep(state, key));
  }
  const auto start = std::chrono::steady_clock::now();
  Placement placement = Place(input);
  state.metrics.placement_seconds.Observe(Seconds(std::chrono::steady_clock::now() - start));
  if (placement.unplaced > 0) {
    state.context.log.Warning(fmt::format(
        "{} experts fit on no worker: add expert workers or memory", placement.unplaced));
  }
  for (ExpertKey key = 0; key < state.keys(); ++key) {
    if (key >= state.wanted.size() || state.wanted[key] != placement.holders[key]) {
      state.why_wanted[key] = state.place_why;
    }
  }
  state.wanted = std::move(placement.holders);
}

void UpdateMemberStates(RouterState& state) {
  for (auto& [id, record] : state.members) {
    MemberState& now = record.member.state;
    if (now == MemberState::kSuspect) continue;  // the liveness checker's
    if (record.drain_wanted) {
      now = MemberState::kDraining;
    } else if (record.quarantine) {
      now = MemberState::kQuarantined;
    } else if (record.member.role == Role::kExpert &&
               std::find(record.held.begin(), record.held.end(), true) == record.held.end()) {
      now = MemberState::kJoining;
    } else {
      now = MemberState::kActive;
    }
  }
}

// Replicas that left the table are read until every attention worker has a table without them.
void NoteRetired(RouterState& state, const ClusterTable& before, const ClusterTable& after) {
  if (before.replicas.size() != after.replicas.size()) return;
  for (ExpertKey key = 0; key < after.replicas.size(); ++key) {
    const MoveReason why =
        key < state.why_wanted.size() ? state.why_wanted[key] : MoveReason::kReturn;
    for (MemberId id : before.replicas[key]) {
      if (std::binary_search(after.replicas[key].begin(), after.replicas[key].end(), id)) continue;
      state.metrics.ExpertMoved(why, "unloaded");
      if (state.Find(id) != nullptr) state.retiring[{key, id}] = after.epoch;
    }
    for (MemberId id : after.replicas[key]) {
      if (!std::binary_search(before.replicas[key].begin(), before.replicas[key].end(), id)) {
        state.metrics.ExpertMoved(why, "loaded");
      }
      state.retiring.erase({key, id});
    }
  }
}

// Epoch that every member of `role` reads at least.
uint64_t EpochReadByAll(const RouterState& state, Role role) {
  uint64_t epoch = state.epoch;
  for (const auto& [id, record] : state.members) {
    if (record.member.role == role) epoch = std::min(epoch, record.acked_epoch);
  }
  return epoch;
}

void SendAssignment(RouterState& state, MemberId id, MemberRecord& record) {
  std::vector<bool> assignment = MakeAssignment(state, id);
  if (record.stream == nullptr) return;
  const bool tell_again = std::exchange(record.tell_again, false);
  if (assignment == record.assigned && !tell_again) return;
  wire::RouterMessage message;
  auto* experts = message.mutable_assignment()->mutable_experts();
  for (ExpertKey key = 0; key < assignment.size(); ++key) {
    if (!assignment[key]) continue;
    auto* expert = experts->Add();
    expert->set_layer(key / state.experts);
    expert->set_expert(key % state.experts);
    if (!record.held[key] && !record.loading_since) record.loading_since = state.context.loop.Now();
  }
  record.assigned = std::move(assignment);
  SendOrEnd(record, message);
}

// An expert worker may go when it is assigned nothing any more, or when there is no attention
// worker that could miss it (a cluster that shuts down); another member when all who send it work
// have seen that it drains.
bool MayLeave(const RouterState& state, const MemberRecord& record) {
  switch (record.member.role) {
    case Role::kExpert:
      if (std::none_of(state.members.begin(), state.members.end(), [](const auto& entry) {
            return entry.second.member.role == Role::kAttention;
          })) {
        return true;
      }
      return std::find(record.assigned.begin(), record.assigned.end(), true) ==
             record.assigned.end();
    case Role::kAttention:
      return EpochReadByAll(state, Role::kGateway) >= record.draining_since;
    default:
      return true;
  }
}

void LetLeave(RouterState& state) {
  for (auto& [id, record] : state.members) {
    if (record.member.state != MemberState::kDraining || record.leave_sent) continue;
    if (record.draining_since == 0) record.draining_since = state.epoch;
    if (!MayLeave(state, record)) continue;
    wire::RouterMessage message;
    message.mutable_leave();
    SendOrEnd(record, message);
    record.leave_sent = record.stream != nullptr;
  }
}

void ExportGauges(RouterState& state) {
  state.metrics.table_epoch.Set(static_cast<double>(state.epoch));
  state.metrics.term.Set(static_cast<double>(state.term));
  double watchers = 0, counts[4][kMemberStates] = {};
  for (const auto& [id, record] : state.members) {
    watchers += record.stream != nullptr;
    ++counts[static_cast<int>(record.member.role)][static_cast<int>(record.member.state)];
  }
  state.metrics.watchers.Set(watchers);
  for (int role = 0; role < 4; ++role) {
    for (int s = 0; s < kMemberStates; ++s) {
      state.metrics.Members(static_cast<Role>(role), static_cast<MemberState>(s))
          .Set(counts[role][s]);
    }
  }
  size_t unassigned = 0, least = SIZE_MAX;
  for (ExpertKey key = 0; state.table != nullptr && key < state.table->replicas.size(); ++key) {
    if (state.IsDense(key / state.experts)) continue;
    unassigned += state.table->replicas[key].empty();
    least = std::min(least, state.table->replicas[key].size());
  }
  state.metrics.experts_unassigned.Set(static_cast<double>(unassigned));
  state.metrics.expert_replicas_min.Set(least == SIZE_MAX ? 0 : static_cast<double>(least));
}

}  // namespace

PlacementInput MakePlacementInput(const RouterState& state) {
  PlacementInput input;
  input.layers = state.layers;
  input.experts = state.experts;
  input.dense_layers = state.dense_layers;
  input.replication = state.config.replication;
  input.replicate_hot = state.config.replicate_hot;
  input.load = ExpectedLoad(state);
  for (const auto& [id, record] : state.members) {
    if (MayHold(record)) {
      input.members.push_back({id, record.capacity, std::max(record.member.speed, 0.01)});
    }
  }
  return input;
}

ClusterTable MakeTable(const RouterState& state) {
  ClusterTable table;
  table.term = state.term;
  table.epoch = state.epoch;
  table.model_digest = state.model_digest;
  table.layers = state.layers;
  table.experts = state.experts;
  for (uint32_t layer = 0; layer < state.layers; ++layer) {
    if (state.IsDense(layer)) table.dense_layers.push_back(layer);
  }
  for (const auto& [id, record] : state.members) table.members.push_back(record.member);
  table.replicas.resize(state.keys());
  for (ExpertKey key = 0; key < state.keys(); ++key) {
    if (state.IsDense(key / state.experts)) continue;
    std::vector<MemberId> wanted_ready, ready, quarantined;
    size_t wanted = 0;
    for (const auto& [id, record] : state.members) {
      const bool is_wanted = key < state.wanted.size() &&
                             std::find(state.wanted[key].begin(), state.wanted[key].end(), id) !=
                                 state.wanted[key].end();
      wanted += is_wanted;
      // A replica that its worker was told to let go may be gone at any moment.
      if (record.member.role != Role::kExpert || !record.held[key] || !record.assigned[key]) {
        continue;
      }
      if (record.quarantine) {
        quarantined.push_back(id);
        continue;
      }
      ready.push_back(id);
      if (is_wanted) wanted_ready.push_back(id);
    }
    table.replicas[key] = wanted > 0 && wanted_ready.size() == wanted ? wanted_ready : ready;
    // The last replica stays: an attention worker that trusts it may use it.
    if (table.replicas[key].empty()) table.replicas[key] = quarantined;
  }
  return table;
}

std::vector<bool> MakeAssignment(const RouterState& state, MemberId id) {
  std::vector<bool> assignment(state.keys());
  const auto contains = [&](const std::vector<MemberId>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (ExpertKey key = 0; key < state.keys(); ++key) {
    assignment[key] = (key < state.wanted.size() && contains(state.wanted[key])) ||
                      (state.table != nullptr && key < state.table->replicas.size() &&
                       contains(state.table->replicas[key]));
  }
  const uint64_t read_by_all = EpochReadByAll(state, Role::kAttention);
  for (auto it = state.retiring.begin(); it != state.retiring.end(); ++it) {
    if (it->first.second == id && it->second > read_by_all) assignment[it->first.first] = true;
  }
  return assignment;
}

void WriteTable(RouterState& state) {
  if (!state.MayWrite()) return;
  const Time now = state.context.loop.Now();
  if (state.place_at && *state.place_at <= now) PlaceNow(state);
  UpdateMemberStates(state);

  ClusterTable next = MakeTable(state);
  const bool first = state.table == nullptr;
  if (first ? !next.members.empty() : !SameContent(next, *state.table)) {
    next.epoch = ++state.epoch;
    if (!first) NoteRetired(state, *state.table, next);
    state.table = std::make_shared<const ClusterTable>(std::move(next));
    state.context.log.SetEpoch(state.epoch);
    Note(state.context.flight, {.kind = FlightKind::kTable, .a = state.epoch, .b = state.term});
    PushTable(state);
  }
  if (!state.ReturnWindowOpen()) {
    for (auto& [id, record] : state.members) {
      if (record.table_due) SendTable(state, record);
    }
  }
  const bool placed = state.wanted.size() == state.keys() && !state.place_at;
  for (auto& [id, record] : state.members) {
    // Before the first placement nobody is told anything: what is held stays held.
    if (record.member.role == Role::kExpert && placed) SendAssignment(state, id, record);
  }
  const uint64_t read_by_all = EpochReadByAll(state, Role::kAttention);
  std::erase_if(state.retiring, [&](const auto& entry) { return entry.second <= read_by_all; });
  LetLeave(state);
  ExportGauges(state);
}

Task<void> RunTableWriter(std::shared_ptr<RouterState> state) {
  while (!state->stopping) {
    WriteTable(*state);
    Time wake = state->place_at.value_or(kNever);
    if (state->ReturnWindowOpen()) wake = std::min(wake, state->place_not_before);
    (void)co_await state->changed.Wait(wake);
  }
}

}  // namespace bottega::router
