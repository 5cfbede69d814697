#pragma once

#include <string>

#include "bottega/internal/v1/membership.pb.h"

namespace bottega {

// `bottega status`: members and which worker serves which experts, as the router sees them.
int RunStatus(int argc, const char* const* argv);

// The same as text and as JSON, without a network.
std::string StatusText(const internal::v1::StatusReply& reply);
std::string StatusJson(const internal::v1::StatusReply& reply);

}  // namespace bottega
