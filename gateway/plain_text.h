#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gateway/json.h"

namespace bottega::gateway {

// What users and tools write is text, also where it spells a control token (`<|im_end|>`, or a path
// with `/turbo` in it). Such spellings are put between marks before the template sees them; after
// it the pieces that hold marks are tokenized as plain characters. Assistant and system turns keep
// their tokens: a history holds `<think>` and `<tool_call>` rightly.
class PlainTextMarks {
 public:
  // `added_tokens` outlives this.
  explicit PlainTextMarks(const std::vector<std::string>& added_tokens);

  void Mark(Json& messages);
  bool any() const { return any_; }
  // `rendered` without marks.
  std::string Restore(std::string_view rendered) const;
  // Alternating: parsed, plain, parsed, … A plain piece is a marked spelling with the text round it
  // up to the next control token on either side, so that it is cut into tokens as one text.
  std::vector<std::string> Split(std::string_view rendered) const;

 private:
  std::string MarkText(std::string_view text);
  size_t TokenAt(std::string_view text, size_t at) const;

  const std::vector<std::string>& tokens_;
  bool begins_[256] = {};  // first bytes of tokens
  bool any_ = false;
};

}  // namespace bottega::gateway
