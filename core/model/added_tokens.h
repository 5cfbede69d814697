#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

struct AddedToken {
  int64_t id = -1;
  std::string text;
  bool special = false;
};

// The added tokens of a tokenizer.json, in file order, for show; what text means which ids is the
// tokenizer's business (core/text). Reads no further than the list and builds nothing else: the
// file may hold a hundred thousand words.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(std::string_view tokenizer_json);

}  // namespace bottega
