#include "gateway/stop_strings.h"

#include <algorithm>
#include <utility>

namespace bottega::gateway {

size_t OverlapWithStart(std::string_view text, std::string_view word) {
  for (size_t size = std::min(text.size(), word.size() - 1); size > 0; --size) {
    if (text.ends_with(word.substr(0, size))) return size;
  }
  return 0;
}

StopStrings::Found StopStrings::Push(std::string_view text) {
  held_ += text;
  Found found;
  size_t first_end = std::string::npos, start = 0;
  size_t overlap = 0;
  for (size_t i = 0; i < stops_.size(); ++i) {
    overlap = std::max(overlap, OverlapWithStart(held_, stops_[i]));
    const size_t at = held_.find(stops_[i]);
    if (at == std::string::npos) continue;
    const size_t end = at + stops_[i].size();
    if (end < first_end || (end == first_end && at < start)) {
      first_end = end;
      start = at;
      found.stop = i;
    }
  }
  const size_t safe = found.stop ? (include_ ? first_end : start) : held_.size() - overlap;
  found.text = held_.substr(0, safe);
  held_.erase(0, found.stop ? held_.size() : safe);
  return found;
}

std::string StopStrings::Pass(std::string_view text) {
  return std::exchange(held_, {}) + std::string(text);
}

std::string StopStrings::Finish() { return std::exchange(held_, {}); }

}  // namespace bottega::gateway
