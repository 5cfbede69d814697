#pragma once

#include <cstdio>
#include <string_view>

namespace bottega {

// What a long command is doing, on stderr: one line that changes on a terminal, else a line each.
class StatusLine {
 public:
  StatusLine() : StatusLine(stderr) {}
  explicit StatusLine(std::FILE* to);
  ~StatusLine() { Clear(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  void Show(std::string_view text);
  // Makes room for a line of results.
  void Clear();

 private:
  std::FILE* const to_;
  const bool terminal_;
  bool shown_ = false;
};

}  // namespace bottega
