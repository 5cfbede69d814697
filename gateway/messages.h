#pragma once

#include "absl/status/status.h"
#include "gateway/request_fields.h"

namespace bottega::gateway {

// The conversation, checked and in the form that templates expect: `reasoning` and
// `reasoning_content` both where one is given, arguments of tool calls as objects where they parse,
// only keys that templates know.
absl::Status ReadMessages(GenerateRequest& request, const Json& value, const RequestBounds& bounds);

absl::Status ReadTools(GenerateRequest& request, const Json& value, const RequestBounds& bounds);
absl::Status ReadToolChoice(GenerateRequest& request, const Json& value,
                            const RequestBounds& bounds);
// After all fields are read: tool_choice against tools.
absl::Status CheckToolChoice(GenerateRequest& request);

}  // namespace bottega::gateway
