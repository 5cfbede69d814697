#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace bottega {

// Progress of a long piece of work on stderr: a bar that redraws itself on a terminal (also with
// NO_COLOR: it has no colour), else one line per 10 %. One thread at a time.
class ProgressBar {
 public:
  explicit ProgressBar(std::string what, std::FILE* to = stderr);
  ~ProgressBar();  // leaves the cursor on a fresh line
  ProgressBar(const ProgressBar&) = delete;

  void Update(uint64_t done, uint64_t total);

 private:
  void DrawBar(double share, uint64_t done, uint64_t total);

  const std::string what_;
  std::FILE* const to_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
  int tenths_ = -1;    // last line printed
  bool open_ = false;  // a bar stands on the current line
};

}  // namespace bottega
