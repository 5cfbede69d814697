#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "gateway/request_fields.h"

namespace bottega::gateway {

// A body that passed: every field right by itself and with the others. The message of a refusal
// names the field and its limit.
absl::StatusOr<GenerateRequest> ParseRequest(Api api, std::string_view body,
                                             const RequestBounds& bounds);

}  // namespace bottega::gateway
