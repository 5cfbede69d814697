#pragma once

#include "absl/status/status.h"
#include "bottega/internal/v1/attention.pb.h"
#include "core/base/inbox.h"
#include "core/base/strong_id.h"

namespace bottega::gateway {

// Everything that can happen to a live request, in one queue, so that its coroutine waits in one
// place for all of it.
struct RequestEvent {
  enum class Kind {
    kToken,    // `token`
    kEnded,    // the worker ended it without a token: `ended`
    kLost,     // its worker is gone: `status`, and `drained` if that was to be so
    kTrial,    // a suspect whose turn it is
    kFate,     // of the worker that it was lost with: `died`
    kRefused,  // no place will come: `status`
    kGone,     // the client left
  };
  Kind kind = Kind::kGone;
  int sequence = 0;
  MemberId worker{};
  internal::v1::GeneratedToken token{};
  internal::v1::Ended ended{};
  absl::Status status{};
  bool drained = false;
  bool died = false;
};

using RequestEvents = Inbox<RequestEvent>;

}  // namespace bottega::gateway
