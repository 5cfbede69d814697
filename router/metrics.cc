#include "router/metrics.h"

namespace bottega::router {

using metrics::AddGauge;
using metrics::AddHistogram;

std::string_view Name(MoveReason reason) {
  constexpr std::string_view kNames[] = {"return", "join", "drain", "death", "quarantine", "load"};
  return kNames[static_cast<int>(reason)];
}

std::string_view Name(Role role) {
  constexpr std::string_view kNames[] = {"gateway", "router", "attention", "expert"};
  return kNames[static_cast<int>(role)];
}

std::string_view Name(MemberState state) {
  constexpr std::string_view kNames[kMemberStates] = {"joining", "active", "draining",
                                                      "suspect", "dead",   "quarantined"};
  return kNames[static_cast<int>(state)];
}

Metrics::Metrics(prometheus::Registry& registry)
    : table_epoch(AddGauge(registry, "bottega_router_table_epoch", "Epoch of the table.")),
      term(AddGauge(registry, "bottega_router_term", "Term of this router's table.")),
      is_leader(AddGauge(registry, "bottega_router_is_leader", "1 while this router writes.")),
      watchers(AddGauge(registry, "bottega_router_watchers", "Members with an open session.")),
      experts_unassigned(AddGauge(registry, "bottega_router_experts_unassigned",
                                  "Experts of which no replica serves.")),
      expert_replicas_min(AddGauge(registry, "bottega_router_expert_replicas_min",
                                   "Replicas of the expert that has the fewest.")),
      load_imbalance_ratio(AddGauge(registry, "bottega_router_load_imbalance_ratio",
                                    "Busiest over mean expert worker, in the worst layer.")),
      expert_move_seconds(AddHistogram(registry, "bottega_router_expert_move_seconds",
                                       "From an assignment to its experts being ready.",
                                       metrics::EndToEndBuckets())),
      placement_seconds(AddHistogram(registry, "bottega_router_placement_seconds",
                                     "Computing a placement.", metrics::FineBuckets())),
      member_changes_(prometheus::BuildCounter()
                          .Name("bottega_router_member_changes_total")
                          .Help("Members that joined, were suspected, recovered, left, died, were "
                                "replaced, refused, quarantined, readmitted.")
                          .Register(registry)),
      expert_moves_(prometheus::BuildCounter()
                        .Name("bottega_router_expert_moves_total")
                        .Help("Experts that came to serve on a worker, or left it.")
                        .Register(registry)) {
  for (const MoveReason reason : {MoveReason::kReturn, MoveReason::kJoin, MoveReason::kDrain,
                                  MoveReason::kDeath, MoveReason::kQuarantine, MoveReason::kLoad}) {
    for (const char* outcome : {"loaded", "unloaded"}) Moves(reason, outcome);
  }
  for (const char* change : {"quarantined", "readmitted"}) Changes(Role::kExpert, change);
  for (int role = 0; role < 4; ++role) {
    for (const char* change : {"joined", "suspected", "recovered", "left", "died"}) {
      Changes(static_cast<Role>(role), change);
    }
    const std::string name(Name(static_cast<Role>(role)));
    for (int state = 0; state < kMemberStates; ++state) {
      members_[role][state] = &AddGauge(
          registry, "bottega_router_members", "Members by role and state.",
          {{"role", name}, {"state", std::string(Name(static_cast<MemberState>(state)))}});
    }
    heartbeat_gap_[role] = &AddHistogram(registry, "bottega_router_heartbeat_gap_seconds",
                                         "Time between two heartbeats of a member.",
                                         metrics::InterTokenBuckets(), {{"role", name}});
  }
}

prometheus::Counter& Metrics::Changes(Role role, const char* change) {
  return member_changes_.Add({{"role", std::string(Name(role))}, {"change", change}});
}

void Metrics::Clear() {
  for (prometheus::Gauge* gauge : {&table_epoch, &term, &is_leader, &watchers, &experts_unassigned,
                                   &expert_replicas_min, &load_imbalance_ratio}) {
    gauge->Set(0);
  }
  for (auto& role : members_) {
    for (prometheus::Gauge* gauge : role) gauge->Set(0);
  }
}

prometheus::Counter& Metrics::Moves(MoveReason reason, const char* outcome) {
  return expert_moves_.Add({{"reason", std::string(Name(reason))}, {"outcome", outcome}});
}

}  // namespace bottega::router
