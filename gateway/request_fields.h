#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "gateway/request.h"

namespace bottega::gateway {

// What the validator must know of the model.
struct RequestBounds {
  int64_t vocab_size = 0;
};

enum class FieldKind : uint8_t {
  kInteger,  // in [least, most]
  kNumber,   // in [low, high], or (low, high] where low_open
  kBoolean,
  kText,      // at most `most` bytes
  kShaped,    // read by its own function
  kNoEffect,  // accepted, changes nothing
  kNotYet,    // refused by name unless set to the value that changes nothing
};

// One known field of a request. The table is the only list of them: the parser, the limits in
// messages and the tests of limits are made from it. null counts as absent in every field.
struct FieldRow {
  std::string_view name;
  uint8_t apis = 3;  // Api bits
  FieldKind kind = FieldKind::kNoEffect;
  int64_t least = 0, most = 0;
  double low = 0, high = 0;
  bool low_open = false;
  std::string_view neutral = "null";  // kNotYet: JSON values that change nothing, split by '|'
  void (*store)(GenerateRequest&, const Json&) = nullptr;
  absl::Status (*read)(GenerateRequest&, const Json&, const RequestBounds&) = nullptr;
};

std::span<const FieldRow> FieldTable();
const FieldRow* FindField(Api api, std::string_view name);

// Checks one value against its row and stores it.
absl::Status ReadField(const FieldRow& row, const Json& value, const RequestBounds& bounds,
                       GenerateRequest& request);

// JSON numbers with an integer value, as int64.
std::optional<int64_t> AsInteger(const Json& value);
absl::Status WrongType(std::string_view name, std::string_view wanted, const Json& value);

}  // namespace bottega::gateway
