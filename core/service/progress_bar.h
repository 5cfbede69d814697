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
  using Clock = std::chrono::steady_clock;

  // `start`: when the work began, for the time that is left.
  explicit ProgressBar(std::string what, std::FILE* to = stderr,
                       Clock::time_point start = Clock::now());
  ~ProgressBar();  // leaves the cursor on a fresh line
  ProgressBar(const ProgressBar&) = delete;

  void Update(uint64_t done, uint64_t total);  // bytes
  void Update(double share);                   // 0 to 1, of an amount that is not known

 private:
  void Show(double share, const std::string& amount);
  void DrawBar(double share, const std::string& amount);

  const std::string what_;
  std::FILE* const to_;
  const bool terminal_;
  const Clock::time_point start_;
  Clock::time_point drawn_{};
  int tenths_ = -1;     // last line printed
  bool open_ = false;   // a bar stands on the current line
  bool whole_ = false;  // and shows that all is done
};

}  // namespace bottega
