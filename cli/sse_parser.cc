#include "cli/sse_parser.h"

#include "core/base/limits.h"

namespace bottega {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

}  // namespace

SseParser::SseParser(std::function<bool(std::string_view data)> on_data)
    : on_data_(std::move(on_data)) {}

bool SseParser::Feed(std::string_view bytes) {
  while (open_ && !bytes.empty()) {
    if (skip_lf_ && bytes.front() == '\n') bytes.remove_prefix(1);
    skip_lf_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    line_ += bytes.substr(0, end);
    too_long_ = line_.size() + data_.size() > limits::kClientEventBytesMax;
    if (too_long_) open_ = false;
    if (end == std::string_view::npos) break;
    skip_lf_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    if (open_) EndLine();
  }
  return open_;
}

void SseParser::EndLine() {
  std::string_view line = line_;
  if (first_line_ && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  first_line_ = false;
  if (line.empty()) {
    if (!data_.empty()) open_ = on_data_(std::string_view(data_).substr(0, data_.size() - 1));
    data_.clear();
  } else if (line == "data" || line.starts_with("data:")) {
    line.remove_prefix(line == "data" ? 4 : 5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    data_ += line;
    data_ += '\n';
  }
  line_.clear();
}

}  // namespace bottega
