#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace bottega {

// Whether WriteJsonFile could write `path` as things are, for whoever has long work before that:
// InvalidArgument names what is wrong with it. Empty: nothing will be written. `option` names the
// flag at fault: "--json".
absl::Status CheckJsonFile(const std::string& option, const std::string& path);

// Replaces `path` by the value at once: a reader sees the old file or the new one. After an error
// (Internal) the old one is there and nothing else.
absl::Status WriteJsonFile(const std::string& option, const std::string& path,
                           const nlohmann::ordered_json& value);

}  // namespace bottega
