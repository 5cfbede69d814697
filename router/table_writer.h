#pragma once

#include "core/cluster/placement.h"
#include "router/state.h"

namespace bottega::router {

// Turns what is known into the next table and the next assignments. A move is: the target is told
// to hold the expert → it reports it held (checked and tested) → it is in the table of epoch+1 →
// once the wanted replicas serve, the old one leaves the table → once every attention worker reads
// a table without it, its worker is told to let go.
//
// In this order: places anew if it is time; writes a table of epoch+1 and pushes it whole to every
// member if anything in it changed; sends assignments that changed; tells drained members that they
// may leave. These stay in the table, draining, until they close their session: what they still do
// for requests in progress needs the table.
void WriteTable(RouterState& state);

// What placement is decided on: who may hold experts, and the expected load of each expert.
PlacementInput MakePlacementInput(const RouterState& state);

// The table as it would be now, epoch as of the last one. Pure in `state`.
ClusterTable MakeTable(const RouterState& state);
// What `id` should hold: wanted there, in the table there, or left there but still read.
std::vector<bool> MakeAssignment(const RouterState& state, MemberId id);
// Runs WriteTable whenever something changed, once for all that changed together.
Task<void> RunTableWriter(std::shared_ptr<RouterState> state);

}  // namespace bottega::router
