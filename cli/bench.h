#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

// `bottega bench DIR`: how fast the engine of `bottega serve` is here, each number beside what the
// machine allows.
int RunBench(int argc, const char* const* argv);

// "1,2,4": whole numbers in [least, most], each once; "none": no number. InvalidArgument names
// `option`.
absl::StatusOr<std::vector<int64_t>> ParseCounts(std::string_view option, std::string_view text,
                                                 int64_t least, int64_t most);

}  // namespace bottega
