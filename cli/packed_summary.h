#pragma once

#include <string>

#include "absl/status/status.h"

namespace bottega {

// Opens the packed directory `dir` that was just written and prints its format, digest and bytes.
absl::Status PrintPackedSummary(const std::string& dir);

}  // namespace bottega
