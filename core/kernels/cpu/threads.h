#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace bottega {

// A fixed set of threads that share out numbered items: the caller is one of them, the others
// sleep between calls (a short spin, then a condition variable: with more processes than cores a
// busy wait takes the time of whoever has the work).
//
// Items may run in any order on any thread, so an item's result must depend on its number only;
// kernels split N, M or experts, never K.
class ThreadPool {
 public:
  // threads >= 1, the caller included: ThreadPool(1) has no thread of its own and runs inline.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(item, thread) once for every item in [0, items), thread in [0, threads()), and returns
  // when all are done. Allocates nothing. Calls from several threads take turns; a call from inside
  // an item deadlocks and is forbidden. `fn` does not throw.
  template <class Fn>
  void ParallelFor(int64_t items, const Fn& fn) {
    Run(
        items,
        [](const void* context, int64_t item, int thread) {
          (*static_cast<const Fn*>(context))(item, thread);
        },
        &fn);
  }

 private:
  using ItemFn = void (*)(const void* context, int64_t item, int thread);

  void Run(int64_t items, ItemFn fn, const void* context);
  void WorkerMain(int thread);
  void TakeItems(int thread);
  bool Enter(uint64_t* last_job);  // false: stop
  void Leave();

  // state_: job number << 2 | kOpen | kStop bits, and in the upper half the number of workers
  // inside. A worker enters an open job by adding itself with a compare-exchange; the caller closes
  // the job when no items are left and waits for those inside only. So a worker that the system has
  // not woken in time costs nothing.
  static constexpr uint64_t kOpen = 1, kStop = 2, kInside = uint64_t{1} << 48;

  std::mutex callers_;  // one job at a time

  // The job: written by the caller while it is closed and nobody is inside.
  ItemFn fn_ = nullptr;
  const void* context_ = nullptr;
  int64_t items_ = 0;

  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<uint64_t> state_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;  // workers wait for an open job
  std::condition_variable left_;  // the caller waits for the last worker to leave
  std::vector<std::thread> workers_;
};

}  // namespace bottega
