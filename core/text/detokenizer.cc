#include "core/text/detokenizer.h"

#include <utility>

namespace bottega {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// More tokens than this cannot be waiting for one character: a character is four bytes, so at most
// four byte tokens. The rest is a model that really writes U+FFFD, and goes out.
constexpr size_t kPendingMax = 8;
constexpr size_t kCharacterTokensMax = 4;

// What may stand at the start of `text`, by the table of well-formed UTF-8 (Unicode 3.9, D92).
struct Unit {
  size_t length;  // bytes: of the character, or of the longest start of one that went wrong
  enum { kWhole, kPartial, kBroken } kind;
};

Unit FirstUnit(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  uint8_t lead = byte(0);
  if (lead < 0x80) return {1, Unit::kWhole};
  size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                  : lead >= 0xE0 && lead <= 0xEF ? 3
                  : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                 : 0;
  if (length == 0) return {1, Unit::kBroken};
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, Unit::kPartial};
    if (byte(i) < low || byte(i) > high) return {i, Unit::kBroken};
    low = 0x80;
    high = 0xBF;
  }
  return {length, Unit::kWhole};
}

bool EndsWithReplacement(std::string_view text) {
  return text.size() >= kReplacement.size() &&
         text.substr(text.size() - kReplacement.size()) == kReplacement;
}

}  // namespace

std::string StreamDecoder::Push(int32_t id) {
  if (!tokenizer_->IsValid(id)) return "";
  // Decode leaves these out before it looks at neighbours, so they are in no window either.
  if (skip_special_ && tokenizer_->IsSpecial(id)) return "";
  if (tokenizer_->bytes_concatenate()) return PushBytes(tokenizer_->BytesView(id));
  return PushWindow(id);
}

std::string StreamDecoder::PushBytes(std::string_view bytes) {
  std::string input = std::exchange(partial_, "");
  input.append(bytes);
  decoded_bytes_ += input.size();
  std::string out;
  std::string_view rest = input;
  while (!rest.empty()) {
    Unit unit = FirstUnit(rest);
    if (unit.kind == Unit::kPartial) {
      partial_ = rest;
      break;
    }
    out.append(unit.kind == Unit::kWhole ? rest.substr(0, unit.length) : kReplacement);
    rest.remove_prefix(unit.length);
  }
  return out;
}

// The text that the first `pending_count` pending tokens add after the context.
std::string StreamDecoder::DecodeTail(size_t pending_count) {
  auto decode = [&](const std::vector<int32_t>& ids) {
    std::string text = tokenizer_->Decode(ids, skip_special_).value_or("");
    decoded_bytes_ += text.size();
    return text;
  };
  std::vector<int32_t> ids(context_);
  ids.insert(ids.end(), pending_.begin(), pending_.begin() + pending_count);
  std::string all = decode(ids);
  if (context_.empty()) return all;
  std::string before = decode(context_);
  if (all.substr(0, before.size()) == before) return all.substr(before.size());
  // A broken byte run swallowed the context: its text is out and stays.
  return decode({pending_.begin(), pending_.begin() + pending_count});
}

std::string StreamDecoder::PushWindow(int32_t id) {
  pending_.push_back(id);
  size_t count = pending_.size();
  std::string text = DecodeTail(count);
  if (text.empty() || EndsWithReplacement(text)) {
    if (count < kPendingMax) return "";
    // Bounded look-back: let go of all but what could still be one character.
    count -= kCharacterTokensMax - 1;
    text = DecodeTail(count);
  }
  context_.assign(pending_.begin(), pending_.begin() + count);
  pending_.erase(pending_.begin(), pending_.begin() + count);
  return text;
}

std::string StreamDecoder::Flush() {
  std::string out;
  if (!partial_.empty()) out = kReplacement;
  if (!pending_.empty()) out = DecodeTail(pending_.size());
  partial_.clear();
  context_.clear();
  pending_.clear();
  return out;
}

}  // namespace bottega
