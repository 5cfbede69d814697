#include "gateway/plain_text.h"

#include <algorithm>

namespace bottega::gateway {
namespace {

// A noncharacter (U+FFFE) after the spelling's first character: no text holds one, templates leave
// it alone, and the spelling is none any more.
constexpr std::string_view kMark = "\xEF\xBF\xBE";

size_t CodePointBytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

PlainTextMarks::PlainTextMarks(const std::vector<std::string>& added_tokens)
    : tokens_(added_tokens) {
  for (const std::string& token : tokens_) {
    if (!token.empty()) begins_[static_cast<unsigned char>(token[0])] = true;
  }
}

// Length of the control token that starts at `at`, the longest; 0: none.
size_t PlainTextMarks::TokenAt(std::string_view text, size_t at) const {
  if (!begins_[static_cast<unsigned char>(text[at])]) return 0;
  size_t longest = 0;
  for (const std::string& token : tokens_) {
    if (token.size() > longest && text.substr(at).starts_with(token)) longest = token.size();
  }
  return longest;
}

std::string PlainTextMarks::MarkText(std::string_view text) {
  std::string marked;
  for (size_t at = 0; at < text.size();) {
    const size_t first = CodePointBytes(text[at]);
    const bool spelled = TokenAt(text, at) > first;
    marked += text.substr(at, first);
    if (spelled) {
      marked += kMark;
      any_ = true;
    }
    at += first;
  }
  return marked;
}

void PlainTextMarks::Mark(Json& messages) {
  for (Json& message : messages) {
    const Json& role = message["role"];
    if (role != "user" && role != "tool") continue;
    Json& content = message["content"];
    if (content.is_string()) {
      content = MarkText(content.get_ref<const std::string&>());
    } else if (content.is_array()) {
      for (Json& part : content)
        part["text"] = MarkText(part["text"].get_ref<const std::string&>());
    }
  }
}

std::string PlainTextMarks::Restore(std::string_view rendered) const {
  if (!any_) return std::string(rendered);
  std::string restored;
  for (size_t at = 0; at < rendered.size();) {
    if (rendered.substr(at).starts_with(kMark)) {
      at += kMark.size();
    } else {
      restored += rendered[at++];
    }
  }
  return restored;
}

std::vector<std::string> PlainTextMarks::Split(std::string_view rendered) const {
  std::vector<std::string> pieces(1);
  size_t begin = 0;  // of the text since the last control token
  auto put_text = [&](size_t end) {
    const std::string_view text = rendered.substr(begin, end - begin);
    if (text.find(kMark) == std::string_view::npos) {
      pieces.back() += text;
    } else {
      pieces.push_back(Restore(text));
      pieces.emplace_back();
    }
  };
  for (size_t at = 0; at < rendered.size();) {
    const size_t size = TokenAt(rendered, at);
    if (size == 0) {
      ++at;
      continue;
    }
    put_text(at);
    pieces.back() += rendered.substr(at, size);
    at += size;
    begin = at;
  }
  put_text(rendered.size());
  return pieces;
}

}  // namespace bottega::gateway
