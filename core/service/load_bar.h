#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <thread>

#include "core/base/load_progress.h"
#include "core/service/progress_bar.h"

namespace bottega {

// The bar of a load, for those who look at it again and again: nothing is shown of one that was
// seen to advance for less than kPatience. One thread at a time.
class LoadBar {
 public:
  using Clock = LoadProgress::Clock;
  static constexpr Clock::duration kPatience = std::chrono::milliseconds(500);
  // To be looked at so often; what is between two looks further apart counts as so long.
  static constexpr Clock::duration kLook = std::chrono::milliseconds(50);

  explicit LoadBar(std::FILE* to = stderr) : to_(to) {}

  void Update(uint64_t loaded, uint64_t expected, Clock::time_point now = Clock::now());

 private:
  std::FILE* const to_;
  Clock::time_point begun_{};  // the first look at which it had advanced
  Clock::duration advanced_{};
  Clock::time_point looked_{};
  uint64_t loaded_ = 0;
  std::optional<ProgressBar> bar_;
};

// Watches a process' own load from a thread of its own until it is whole or this ends.
class LoadWatch {
 public:
  // `load` outlives this. Make it after the process' signals are blocked.
  explicit LoadWatch(const LoadProgress& load, std::FILE* to = stderr);
  ~LoadWatch();  // with a last look

 private:
  void Watch(const std::stop_token& stop);

  const LoadProgress& load_;
  LoadBar bar_;  // the thread's
  std::jthread thread_;
};

}  // namespace bottega
