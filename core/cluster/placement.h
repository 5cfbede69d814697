#pragma once

#include <cstdint>
#include <vector>

#include "core/cluster/table.h"

namespace bottega {

// Which expert workers should hold which experts. Pure and deterministic: the same inputs give the
// same result on every machine, so a router that starts again decides what the last one decided.

struct PlacementMember {
  MemberId id;
  uint64_t capacity = 0;  // experts that fit
  double speed = 1;       // relative; a member of speed 2 is given twice the load
};

struct PlacementInput {
  std::vector<PlacementMember> members;  // those that may hold experts
  uint32_t layers = 0;
  uint32_t experts = 0;            // per layer
  std::vector<bool> dense_layers;  // [layer]; true: no experts there; empty: none is dense
  uint32_t replication = 1;        // wanted holders of each expert, capped at the members there are
  // An expert of so much load that one holder's share would be more than is fair for all of a
  // member gets more holders than that, where there is room.
  bool replicate_hot = false;
  // [layer * experts + expert] measured load of the expert, any unit; empty: all equal.
  std::vector<double> load;
  // [layer * experts + expert] → holders now; empty: none. Members not in `members` are ignored.
  std::vector<std::vector<MemberId>> previous;
  // A move is worth it only if it lowers the imbalance of its layer: the heaviest member may stay
  // this factor over what is fair.
  double tolerance = 1.10;
};

struct Placement {
  // [layer * experts + expert] → wanted holders, ascending. Shorter than the replication where
  // capacity ran out, empty for dense layers.
  std::vector<std::vector<MemberId>> holders;
  uint64_t unplaced = 0;        // experts without any holder
  uint64_t replicas_short = 0;  // replicas missing to the wanted replication
};

// In each layer: keeps every previous holder it may, gives what is missing to the member with the
// least load for its speed, then moves single replicas off the heaviest member until it is within
// the tolerance. An extra replica of a hot expert stays until its load is clearly below what asked
// for it. A layer is balanced alone because a token waits for the slowest worker of each
// layer; ties and rests are turned so that no member gets the odd expert of every layer.
// The first replica of every expert is placed before any second one.
Placement Place(const PlacementInput& input);

// What balancing is about: of all layers the worst, the busiest member over the fair share, where
// each expert's load is spread evenly over its holders. `input.previous` does not count.
double Imbalance(const PlacementInput& input, const std::vector<std::vector<MemberId>>& holders);

// Replicas in `next` that are not in `previous`: what must be loaded.
uint64_t CountLoads(const std::vector<std::vector<MemberId>>& previous,
                    const std::vector<std::vector<MemberId>>& next);

}  // namespace bottega
