#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace bottega {

// The page: every table, and every target beside its figure. Takes about a minute; needs the
// repository's root as working directory. The same page on every machine, last digits apart.
absl::StatusOr<std::string> AccuracyReport();

}  // namespace bottega
