#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bottega {

// The page: every table, and every target beside its figure. Takes about a minute of two cores;
// needs the repository's root as working directory.
absl::StatusOr<std::string> AccuracyReport();

}  // namespace bottega
