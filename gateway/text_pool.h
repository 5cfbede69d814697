#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/base/loop.h"
#include "core/base/reason.h"

namespace bottega::gateway {

// The threads that parse bodies, render templates and tokenize, so that neither the loop nor an
// HTTP thread stands still for a long prompt. A bounded queue: full means refuse. Without threads
// (a simulated loop) work runs at once on the caller's.
class TextPool {
 public:
  TextPool(int threads, size_t queue_max);
  ~TextPool();  // Stop

  // Runs what is queued and joins; later work is refused.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // False when the queue is full. Any thread.
  bool Submit(absl::AnyInvocable<void()> work) ABSL_LOCKS_EXCLUDED(mutex_);

  // Runs `work` on the pool and resumes the calling task on `loop` with what it returned. The task
  // may die meanwhile; `work` owns all it touches.
  template <class T>
  Task<absl::StatusOr<T>> Run(Loop& loop, absl::AnyInvocable<absl::StatusOr<T>()> work);

 private:
  void Work() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  const size_t queue_max_;
  std::vector<std::thread> threads_;
};

template <class T>
Task<absl::StatusOr<T>> TextPool::Run(Loop& loop, absl::AnyInvocable<absl::StatusOr<T>()> work) {
  struct Shared {
    Slot* done;  // null once the task is gone; loop thread only
    std::optional<absl::StatusOr<T>> result;
  };
  Slot done(loop);
  auto shared = std::make_shared<Shared>(Shared{&done, std::nullopt});
  struct Forget {
    std::shared_ptr<Shared> shared;
    ~Forget() { shared->done = nullptr; }
  } forget{shared};
  auto on_pool = [shared, &loop, work = std::move(work)]() mutable {
    shared->result.emplace(work());
    loop.Post([shared] {
      if (shared->done != nullptr) shared->done->Wake();
    });
  };
  if (!Submit(std::move(on_pool))) {
    co_return MakeError(Reason::kQueueFull, "too many prompts are being tokenized");
  }
  absl::Status woken = co_await done.Wait();
  if (!woken.ok()) co_return woken;
  co_return *std::move(shared->result);
}

}  // namespace bottega::gateway
