#pragma once

#include "router/state.h"

namespace bottega::router {

// Pushes the whole table to every open session; the latest wins.
void PushTable(RouterState& state);
// A member that does not read is as good as gone: its session ends, it may come back.
void SendOrEnd(MemberRecord& record, const internal::v1::RouterMessage& message);

}  // namespace bottega::router
