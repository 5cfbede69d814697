#include "core/text/tokenizer.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/text/rust_call.h"

namespace bottega {

using text::OwnedBytes;
using text::SpanOf;
using text::StatusOf;

struct Tokenizer::Impl {
  bottega_text_tokenizer* handle = nullptr;
  bottega_text_vocabulary vocabulary{};
  std::vector<AddedToken> added;
  size_t longest_token_bytes = 0;

  ~Impl() { bottega_text_tokenizer_free(handle); }

  std::string_view Text(size_t id) const {
    return Slice(vocabulary.texts, vocabulary.text_ends, id);
  }
  std::string_view Bytes(size_t id) const {
    return Slice(vocabulary.bytes, vocabulary.byte_ends, id);
  }
  static std::string_view Slice(const char* data, const uint32_t* ends, size_t id) {
    size_t begin = id == 0 ? 0 : ends[id - 1];
    return {data + begin, ends[id] - begin};
  }
};

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

absl::StatusOr<Tokenizer> Tokenizer::Load(std::string_view tokenizer_json) {
  if (tokenizer_json.size() > limits::kTokenizerBytesMax) {
    return MakeError(Reason::kModelRefused,
                     absl::StrCat("tokenizer.json: ", tokenizer_json.size(),
                                  " bytes, more than the limit of ", limits::kTokenizerBytesMax));
  }
  auto impl = std::make_unique<Impl>();
  OwnedBytes message;
  RETURN_IF_ERROR(StatusOf(
      bottega_text_tokenizer_load(SpanOf(tokenizer_json), &impl->handle, message.out()), message));
  bottega_text_tokenizer_vocabulary(impl->handle, &impl->vocabulary);
  for (size_t id = 0; id < impl->vocabulary.size; ++id) {
    impl->longest_token_bytes = std::max(impl->longest_token_bytes, impl->Bytes(id).size());
    uint8_t flags = impl->vocabulary.flags[id];
    if ((flags & BOTTEGA_TEXT_TOKEN_ADDED) == 0) continue;
    impl->added.push_back({.id = static_cast<int32_t>(id),
                           .content = std::string(impl->Text(id)),
                           .special = (flags & BOTTEGA_TEXT_TOKEN_SPECIAL) != 0});
  }
  return Tokenizer(std::move(impl));
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       EncodeOptions options) const {
  bottega_text_ids ids{nullptr, 0};
  OwnedBytes message;
  RETURN_IF_ERROR(StatusOf(
      bottega_text_tokenizer_encode(impl_->handle, SpanOf(text), options.add_special_tokens,
                                    options.parse_special_tokens, &ids, message.out()),
      message));
  std::vector<int32_t> out(ids.data, ids.data + ids.size);
  bottega_text_free_ids(ids);
  return out;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const int32_t> ids,
                                              bool skip_special) const {
  OwnedBytes text, message;
  RETURN_IF_ERROR(StatusOf(bottega_text_tokenizer_decode(impl_->handle, ids.data(), ids.size(),
                                                         skip_special, text.out(), message.out()),
                           message));
  return std::string(text.view());
}

static absl::Status OutOfRange(int32_t id, int32_t size) {
  return MakeError(Reason::kInvalidValue,
                   absl::StrCat("token id ", id, " is outside the vocabulary of ", size));
}

absl::StatusOr<std::string> Tokenizer::TokenText(int32_t id) const {
  if (!IsValid(id)) return OutOfRange(id, vocab_size());
  return std::string(impl_->Text(id));
}

absl::StatusOr<std::string> Tokenizer::TokenBytes(int32_t id) const {
  if (!IsValid(id)) return OutOfRange(id, vocab_size());
  return std::string(impl_->Bytes(id));
}

std::optional<int32_t> Tokenizer::IdOf(std::string_view token) const {
  int32_t id = -1;
  OwnedBytes message;
  bottega_text_tokenizer_id_of(impl_->handle, SpanOf(token), &id, message.out());
  if (id < 0) return std::nullopt;
  return id;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->vocabulary.size); }
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added; }
size_t Tokenizer::longest_token_bytes() const { return impl_->longest_token_bytes; }

bool Tokenizer::IsValid(int32_t id) const { return id >= 0 && id < vocab_size(); }
bool Tokenizer::IsSpecial(int32_t id) const {
  return (impl_->vocabulary.flags[id] & BOTTEGA_TEXT_TOKEN_SPECIAL) != 0;
}
std::string_view Tokenizer::BytesView(int32_t id) const { return impl_->Bytes(id); }
bool Tokenizer::bytes_concatenate() const { return impl_->vocabulary.bytes_concatenate; }

}  // namespace bottega
