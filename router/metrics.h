#pragma once

#include "core/cluster/table.h"
#include "observability/metrics.h"

namespace bottega::router {

std::string_view Name(Role role);
std::string_view Name(MemberState state);

// bottega_router_*; described in observability/metrics.md.
struct Metrics {
  explicit Metrics(prometheus::Registry& registry);

  prometheus::Gauge& table_epoch;
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
  // change: joined, suspected, recovered, left, died, refused, quarantined, readmitted
  void MemberChanged(Role role, const char* change);
  // reason: placement; outcome: loaded, unloaded
  void ExpertsMoved(const char* outcome, double count);
  prometheus::Histogram& HeartbeatGap(Role role) { return *heartbeat_gap_[static_cast<int>(role)]; }

 private:
  prometheus::Gauge* members_[4][6];
  prometheus::Histogram* heartbeat_gap_[4];
  prometheus::Family<prometheus::Counter>& member_changes_;
  prometheus::Family<prometheus::Counter>& expert_moves_;
};

}  // namespace bottega::router
