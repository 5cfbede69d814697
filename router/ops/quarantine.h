#pragma once

#include "router/state.h"

namespace bottega::router {

// What an attention worker reports with a heartbeat: expert workers whose answers were wrong. Each
// is taken out of the table and of the placement and told to test itself; an alarm is logged. The
// last trusted expert worker is never taken out: an attention worker that sees faults everywhere is
// more likely at fault itself, and uses none of them anyway.
void TakeReports(RouterState& state, MemberId from, const internal::v1::Heartbeat& heartbeat);

// A quarantined worker comes back once its time is over and it has passed a self-test.
void ReviewQuarantine(RouterState& state, MemberRecord& record,
                      const internal::v1::Heartbeat& heartbeat);

// The worker's stream broke and it may not have heard.
void TellQuarantine(MemberRecord& record);

}  // namespace bottega::router
