#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bottega {

// Parses a JSON object that comes with a model. Beyond nlohmann's own checks (UTF-8, numbers,
// nesting without recursion) it refuses, before building anything: more than `bytes_max` bytes,
// depth or values past core/base/limits.h, a key that occurs twice in one object. `file` names the
// text in messages.
absl::StatusOr<nlohmann::json> ParseCheckedJson(std::string_view text, std::string_view file,
                                                size_t bytes_max);

}  // namespace bottega
