#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

namespace bottega {

// Bytes done of all there are. Any thread; the callback is called by one at a time.
class WorkProgress {
 public:
  using Callback = std::function<void(uint64_t done, uint64_t total)>;
  WorkProgress(uint64_t total, Callback callback) : total_(total), callback_(std::move(callback)) {}

  void Advance(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    done_ += bytes;
    if (callback_) callback_(done_, total_);
  }

 private:
  const uint64_t total_;
  const Callback callback_;
  std::mutex mutex_;
  uint64_t done_ = 0;
};

}  // namespace bottega
