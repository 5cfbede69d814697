#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bottega {

// Names that SyntheticShape knows, as an error lists them.
inline constexpr std::string_view kSyntheticShapes = "enggpt2, qwen3-30b-a3b";

// The config.json of a model to make: a published model's by its name, or the file whose path ends
// in .json; cut to the first `layers` layers. InvalidArgument, which says what is allowed, for any
// other shape and for more layers than it has; kModelRefused for a config that is not understood.
absl::StatusOr<std::string> SyntheticShape(const std::string& shape, std::optional<int64_t> layers);

}  // namespace bottega
