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
  uint64_t AwaitJob(uint64_t seen);

  std::mutex callers_;  // one job at a time

  // The job: written by the caller while no worker is inside, read by workers after `job_` moved.
  ItemFn fn_ = nullptr;
  const void* context_ = nullptr;
  int64_t items_ = 0;
  alignas(64) std::atomic<int64_t> next_item_{0};
  alignas(64) std::atomic<int> busy_{0};  // workers that have not finished the job

  alignas(64) std::atomic<uint64_t> job_{0};  // grows by one per job; kStop ends the workers
  std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;  // workers wait for job_ to move
  std::condition_variable done_;  // the caller waits for busy_ == 0
  std::vector<std::thread> workers_;
};

}  // namespace bottega
