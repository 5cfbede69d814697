#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/cluster/table.h"

namespace bottega {

// Rows of one layer that want an expert.
struct RouteNeed {
  ExpertId expert;
  uint32_t rows = 0;
};

// A member that can be sent work now, and how long it will take: n rows sent now are back after
// ready_us + base_us + row_us * n.
struct RouteMember {
  MemberId member;
  double ready_us = 0;  // until its queue is empty
  double base_us = 0;   // once for each member that gets anything
  double row_us = 0;
};

struct RouteRefusal {
  MemberId member;
  ExpertId expert;
};

struct RouteQuery {
  const ClusterTable& table;
  LayerId layer;
  absl::Span<const RouteNeed> need;        // ascending, distinct
  absl::Span<const RouteMember> members;   // ascending, distinct
  absl::Span<const RouteRefusal> refused;  // (member, expert) pairs to avoid
};

// Who computes what. Reused from call to call.
struct Routing {
  static constexpr int32_t kNobody = -1;
  std::vector<int32_t> member_of;  // [need]: index in members, or kNobody
  std::vector<double> finish_us;   // [members]: predicted, with this work

 private:
  friend void Route(const RouteQuery& query, Routing* out);
  struct Choice {
    uint32_t need;
    uint32_t candidates;
  };
  std::vector<Choice> order_;
  std::vector<bool> used_;
};

// Chooses a replica for every expert so that the last member to finish finishes early. Experts with
// one replica are placed first, then the rest by falling rows, each where it would be done soonest;
// a tie goes to a member that has work already (its token rows travel once, its base cost is paid),
// then by a hash of (layer, expert, member), so that without any knowledge of load replicas share
// the experts evenly. Pure: the same query gives the same answer everywhere.
void Route(const RouteQuery& query, Routing* out);

}  // namespace bottega
