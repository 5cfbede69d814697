#pragma once

#include "absl/status/statusor.h"
#include "router/state.h"

namespace bottega::router {

// A member comes, or comes back. Checks first: a known role and protocol, the model of this cluster
// (kModelRefused), an incarnation not older than the one that is known (AlreadyExists). A newer
// incarnation of the name takes over; the older session is closed. Sends welcome and the table.
absl::StatusOr<MemberId> Register(RouterState& state, const internal::v1::Register& request,
                                  std::shared_ptr<SessionStream> stream);

// The stream of a session ended; `stream` tells it from a newer one of the same member.
void SessionEnded(RouterState& state, MemberId id, const SessionStream* stream,
                  const absl::Status& why);

}  // namespace bottega::router
