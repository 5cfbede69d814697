#include "core/model/region_threads.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

namespace bottega {

absl::Status ForEachRegion(int threads, size_t count,
                           absl::FunctionRef<absl::Status(size_t)> each) {
  if (threads <= 0) {
    threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
  }
  std::atomic<size_t> next{0};
  std::atomic<bool> ok{true};
  std::mutex mutex;
  absl::Status first_error;
  auto work = [&] {
    for (size_t i = next++; i < count && ok; i = next++) {
      absl::Status status = each(i);
      if (status.ok()) continue;
      std::lock_guard lock(mutex);
      first_error.Update(status);
      ok = false;
    }
  };
  {
    std::vector<std::jthread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(work);
    work();
  }
  return first_error;
}

}  // namespace bottega
