#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/time.h"

namespace bottega {

struct ByteCount {
  uint64_t value = 0;
};

// "24GiB", "512 MB", "4096": binary and decimal suffixes. InvalidArgument otherwise.
absl::StatusOr<ByteCount> ParseByteCount(std::string_view text);
// "300ms", "10s", "2m", "1h", "50us".
absl::StatusOr<Duration> ParseDuration(std::string_view text);
// "32768", "32K" (1024), "1M".
absl::StatusOr<int64_t> ParseCount(std::string_view text);

// Where the value of an option goes. A bool is a flag without a value (--x, --no-x, --x=false).
// int64_t takes ParseCount's forms. A vector takes the flag several times, a comma list in the
// environment, a list in YAML.
using OptionTarget = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*,
                                  Duration*, ByteCount*>;

// Sets the target (appends to a vector). Empty if `text` was understood, else what is wrong with
// it.
std::string SetTarget(const OptionTarget& target, const std::string& text);
// As SetTarget and YAML read it back.
std::string FormatTarget(const OptionTarget& target);
// What --help shows behind the name: " N", " TIME"; empty for a bool.
std::string_view TargetPlaceholder(const OptionTarget& target);

}  // namespace bottega
