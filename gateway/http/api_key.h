#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace bottega::gateway {

// `authorization` is "Bearer KEY", `api_key` the x-api-key header; either will do. No keys
// configured: everyone passes. Compares in a time that does not depend on where a key differs.
absl::Status CheckApiKey(const std::vector<std::string>& keys, const std::string& authorization,
                         const std::string& api_key);

}  // namespace bottega::gateway
