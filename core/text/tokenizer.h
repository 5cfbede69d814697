#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace bottega {

struct EncodeOptions {
  // Add what the file's post-processor adds (a BOS, say). Off for a rendered chat: its template has
  // written all there is.
  bool add_special_tokens = false;
  // Off: the text of an added token (`<|im_end|>`, `/turbo`) is plain characters, as it must be in
  // what a user wrote. It holds for added tokens with and without the `special` flag.
  bool parse_special_tokens = true;
};

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;  // skipped by Decode(skip_special)
};

// A Hugging Face tokenizer.json. Const methods may run on any number of threads at once.
class Tokenizer {
 public:
  // Refuses (kModelRefused, the message names the field) what it would not tokenize exactly like
  // Hugging Face's `tokenizers`: unknown component types, ids with gaps, merges of tokens that do
  // not exist, more than limits::kTokenizerBytesMax.
  static absl::StatusOr<Tokenizer> Load(std::string_view tokenizer_json);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // `text` must be UTF-8.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, EncodeOptions options) const;
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids, bool skip_special) const;

  // The token as the vocabulary spells it ("Ġciao").
  absl::StatusOr<std::string> TokenText(int32_t id) const;
  // What the token adds to a text (" ciao"); may end inside a UTF-8 character.
  absl::StatusOr<std::string> TokenBytes(int32_t id) const;
  std::optional<int32_t> IdOf(std::string_view token) const;

  // Ids are 0 .. vocab_size() - 1, added tokens included.
  int32_t vocab_size() const;
  // Ascending by id.
  const std::vector<AddedToken>& added_tokens() const;
  // A text of more bytes than context * this cannot fit, whatever it says.
  size_t longest_token_bytes() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);

  bool IsValid(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  std::string_view BytesView(int32_t id) const;
  // Decode is exactly the tokens' bytes one after the other (byte-level BPE).
  bool bytes_concatenate() const;

  std::unique_ptr<Impl> impl_;
};

}  // namespace bottega
