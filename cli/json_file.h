#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace bottega {

// Replaces `path` by the value at once: a reader sees the old file or the new one. `option` names
// the flag at fault: "--json".
absl::Status WriteJsonFile(const std::string& option, const std::string& path,
                           const nlohmann::ordered_json& value);

}  // namespace bottega
