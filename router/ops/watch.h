#pragma once

#include "router/state.h"

namespace bottega::router {

// Sends the whole table to one member; later, if it still has one of an earlier router and others
// may come back.
void SendTable(const RouterState& state, MemberRecord& record);
// To every open session; the latest wins.
void PushTable(RouterState& state);
// A member that does not read is as good as gone: its session ends, it may come back.
void SendOrEnd(MemberRecord& record, const internal::v1::RouterMessage& message);

}  // namespace bottega::router
