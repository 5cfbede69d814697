#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace bottega::gateway {

// Keeps the order of keys: messages and tools are shown to the model as the client wrote them.
using Json = nlohmann::ordered_json;

// Parses the body of a request. Refused before anything grows: nesting or values past
// core/base/limits.h, a key that occurs twice in one object, bad UTF-8, a lone surrogate, U+0000,
// numbers past a double. Linear in the text. Never quotes the text in a message.
absl::StatusOr<Json> ParseRequestJson(std::string_view text);

// Bytes that are not UTF-8 become U+FFFD; nothing throws.
std::string DumpJson(const Json& value);

// What a value is, for messages: "a string", "null", ...
std::string_view KindOf(const Json& value);

}  // namespace bottega::gateway
