#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bottega/internal/v1/membership.pb.h"
#include "core/base/time.h"

namespace bottega {

// `bottega status`: members and which worker serves which experts, as the router sees them.
int RunStatus(int argc, const char* const* argv);

// One question to a router; Unavailable if none answers.
absl::StatusOr<internal::v1::StatusReply> AskRouter(const std::string& router, Duration timeout);

// The same as text and as JSON, without a network.
std::string StatusText(const internal::v1::StatusReply& reply);
std::string StatusJson(const internal::v1::StatusReply& reply);

}  // namespace bottega
