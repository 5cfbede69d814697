#pragma once

#include "core/cluster/table.h"
#include "observability/metrics.h"

namespace bottega::router {

// Why experts are placed anew, and so why one is loaded or unloaded.
enum class MoveReason : uint8_t {
  kReturn,      // no placement: its worker held it already, or came back
  kJoin,        // an expert worker joined
  kDrain,       // one asked to leave
  kDeath,       // one is gone
  kQuarantine,  // one answers wrongly
  kLoad,        // measured load
};
inline constexpr int kMemberStates = 6;

std::string_view Name(MoveReason reason);
std::string_view Name(Role role);
std::string_view Name(MemberState state);

// bottega_router_*; described in observability/metrics.md.
struct Metrics {
  explicit Metrics(prometheus::Registry& registry);

  prometheus::Gauge& table_epoch;
  prometheus::Gauge& term;
  prometheus::Gauge& is_leader;
  prometheus::Gauge& watchers;
  prometheus::Gauge& experts_unassigned;
  prometheus::Gauge& expert_replicas_min;
  prometheus::Gauge& load_imbalance_ratio;
  prometheus::Histogram& expert_move_seconds;
  prometheus::Histogram& placement_seconds;

  prometheus::Gauge& Members(Role role, MemberState state) {
    return *members_[static_cast<int>(role)][static_cast<int>(state)];
  }
  // change: joined, suspected, recovered, left, died, replaced, refused, quarantined, readmitted
  void MemberChanged(Role role, const char* change) { Changes(role, change).Increment(); }
  double MemberChanges(Role role, const char* change) { return Changes(role, change).Value(); }
  // reason: a MoveReason; outcome: loaded, unloaded
  void ExpertMoved(MoveReason reason, const char* outcome) { Moves(reason, outcome).Increment(); }
  // A standby has no members and no table.
  void Clear();
  prometheus::Histogram& HeartbeatGap(Role role) { return *heartbeat_gap_[static_cast<int>(role)]; }

 private:
  prometheus::Counter& Changes(Role role, const char* change);
  prometheus::Counter& Moves(MoveReason reason, const char* outcome);

  prometheus::Gauge* members_[4][kMemberStates];
  prometheus::Histogram* heartbeat_gap_[4];
  prometheus::Family<prometheus::Counter>& member_changes_;
  prometheus::Family<prometheus::Counter>& expert_moves_;
};

}  // namespace bottega::router
