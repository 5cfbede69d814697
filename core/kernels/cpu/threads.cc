#include "core/kernels/cpu/threads.h"

#include "core/base/check.h"

namespace bottega {
namespace {

// A few microseconds: less than a wake-up (20-45 us), more than the gap between two operators.
constexpr int kSpins = 200;

inline void Pause() { __builtin_ia32_pause(); }

}  // namespace

ThreadPool::ThreadPool(int threads) {
  CHECK_GE(threads, 1);
  workers_.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { WorkerMain(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(sleep_mutex_);
    state_.fetch_or(kStop);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t items, ItemFn fn, const void* context) {
  std::lock_guard lock(callers_);
  if (workers_.empty() || items <= 1) {
    for (int64_t item = 0; item < items; ++item) fn(context, item, 0);
    return;
  }
  fn_ = fn;
  context_ = context;
  items_ = items;
  next_item_.store(0, std::memory_order_relaxed);
  const uint64_t job = (state_.load(std::memory_order_relaxed) >> 2) + 1;
  state_.store((job << 2) | kOpen);
  // Sequentially consistent with the sleeper, which counts itself before it looks at state_.
  if (sleepers_.load() > 0) {
    { std::lock_guard sleep_lock(sleep_mutex_); }
    wake_.notify_all();
  }
  TakeItems(0);
  uint64_t state = state_.fetch_and(~kOpen);
  for (int spin = 0; state >= kInside && spin < kSpins; ++spin) {
    Pause();
    state = state_.load();
  }
  if (state < kInside) return;
  std::unique_lock sleep_lock(sleep_mutex_);
  left_.wait(sleep_lock, [this] { return state_.load() < kInside; });
}

void ThreadPool::TakeItems(int thread) {
  for (;;) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= items_) return;
    fn_(context_, item, thread);
  }
}

void ThreadPool::WorkerMain(int thread) {
  uint64_t last_job = 0;
  while (Enter(&last_job)) {
    TakeItems(thread);
    Leave();
  }
}

bool ThreadPool::Enter(uint64_t* last_job) {
  const auto job_of = [](uint64_t state) { return (state % kInside) >> 2; };
  const auto wanted = [&](uint64_t state) {
    return (state & kStop) || ((state & kOpen) && job_of(state) != *last_job);
  };
  for (;;) {
    uint64_t state = state_.load();
    for (int spin = 0; !wanted(state) && spin < kSpins; ++spin) {
      Pause();
      state = state_.load();
    }
    if (!wanted(state)) {
      std::unique_lock lock(sleep_mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return wanted(state = state_.load()); });
      sleepers_.fetch_sub(1);
    }
    if (state & kStop) return false;
    if (state_.compare_exchange_strong(state, state + kInside)) {
      *last_job = job_of(state);
      return true;
    }
  }
}

void ThreadPool::Leave() {
  const uint64_t before = state_.fetch_sub(kInside);
  if (before >= 2 * kInside || (before & kOpen)) return;
  // Last one out of a closed job: the caller may be asleep. Locking orders this after its check.
  { std::lock_guard lock(sleep_mutex_); }
  left_.notify_one();
}

}  // namespace bottega
