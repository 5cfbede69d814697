#include "cli/status_line.h"

#include <unistd.h>

namespace bottega {

StatusLine::StatusLine(std::FILE* to) : to_(to), terminal_(::isatty(::fileno(to)) == 1) {}

void StatusLine::Show(std::string_view text) {
  Clear();
  std::fprintf(to_, terminal_ ? "%.*s" : "%.*s\n", static_cast<int>(text.size()), text.data());
  std::fflush(to_);
  shown_ = true;
}

void StatusLine::Clear() {
  if (terminal_ && shown_) std::fputs("\r\033[K", to_);
  std::fflush(to_);
  shown_ = false;
}

}  // namespace bottega
