#pragma once

#include <coroutine>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <memory_resource>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "core/base/strong_id.h"
#include "core/base/task.h"
#include "core/base/time.h"

namespace bottega {

class Loop;

// Something that must be polled for progress and can be slept on: a UCX worker.
class Poller {
 public:
  virtual ~Poller() = default;
  // Does what can be done now, bounded in time; true if anything happened.
  virtual bool Progress() = 0;
  // Prepares for sleep; false if something arrived meanwhile (then poll again, do not sleep).
  virtual bool Arm() = 0;
  virtual int fd() const = 0;
};

namespace loop_internal {

// A suspended coroutine that waits for a wake-up, a time, or both. Lives in the suspended frame, so
// destroying the frame unregisters it everywhere.
class Waiter {
 public:
  explicit Waiter(Loop& loop) : loop_(loop) {}
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter();

 private:
  friend class bottega::Loop;
  Loop& loop_;
  std::coroutine_handle<> handle_;
  bool timed_out_ = false;
  bool ready_ = false;
  NodeId node_;                                     // whose frame this is
  std::optional<std::pair<Time, uint64_t>> timer_;  // key in Loop::timers_

 public:
  Loop& loop() { return loop_; }
  bool timed_out() const { return timed_out_; }
  void Suspend(std::coroutine_handle<> handle, Time deadline);
  void WakeUp();
};

}  // namespace loop_internal

// A wake-up for one waiter. Wake() before Wait() counts (once). Wake never resumes inline: the
// waiter goes to the loop's ready list. Loop thread only.
class Slot {
 public:
  explicit Slot(Loop& loop) : loop_(loop) {}
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { CHECK(waiter_ == nullptr); }

  void Wake();

  class Awaiter {
   public:
    Awaiter(Slot& slot, Time deadline) : slot_(slot), deadline_(deadline), waiter_(slot.loop_) {}
    ~Awaiter() {
      if (slot_.waiter_ == &waiter_) slot_.waiter_ = nullptr;
    }
    bool await_ready() { return std::exchange(slot_.signalled_, false); }
    void await_suspend(std::coroutine_handle<> handle) {
      CHECK(slot_.waiter_ == nullptr);
      slot_.waiter_ = &waiter_;
      waiter_.Suspend(handle, deadline_);
    }
    absl::Status await_resume() {
      if (slot_.waiter_ == &waiter_) slot_.waiter_ = nullptr;
      return waiter_.timed_out() ? absl::DeadlineExceededError("") : absl::OkStatus();
    }

   private:
    Slot& slot_;
    Time deadline_;
    loop_internal::Waiter waiter_;
  };

  // Ok when woken, DeadlineExceeded when `deadline` came first.
  Awaiter Wait(Time deadline = kNever) { return Awaiter(*this, deadline); }

 private:
  Loop& loop_;
  loop_internal::Waiter* waiter_ = nullptr;
  bool signalled_ = false;
};

// One thread that owns scheduler, KV, transport and exchange of a worker, and computes too; every
// wait of its coroutines goes through it. Two modes behind the same class:
//   real       steady clock, epoll for fds and pollers, ready list in FIFO order;
//   simulated  virtual clock that jumps to the next timer when nothing is ready, and a seeded pick
//              from the ready list, so that one seed is one history.
// All calls are for the loop's thread except Post and Stop.
class Loop {
 public:
  static std::unique_ptr<Loop> Real();
  static std::unique_ptr<Loop> Simulated(uint64_t seed);
  ~Loop();

  Time Now() const;
  bool simulated() const { return simulated_; }

  // Starts `task` as part of `node` (a process of the cluster; one loop may carry several). It
  // first runs from the ready list, never inline.
  void Spawn(NodeId node, Task<void> task);
  // Destroys every frame of `node`, as a kill would; destructors run, nothing else does. From
  // inside the node itself the kill happens when the running task suspends.
  void Kill(NodeId node);
  size_t tasks(NodeId node) const;

  // Any thread: runs `fn` on the loop's thread, in order.
  void Post(absl::AnyInvocable<void()> fn) ABSL_LOCKS_EXCLUDED(posted_mutex_);

  // Runs until Stop(), or (simulated) until nothing can ever happen again.
  void Run();
  // Simulated: runs until virtual time `end` or until nothing is left; the clock ends at `end`.
  void RunUntil(Time end);
  void Stop();  // any thread

  class SleepAwaiter;
  SleepAwaiter SleepUntil(Time t);
  SleepAwaiter Sleep(Duration d);
  // To the end of the ready list; posts, timers and pollers have their turn before it goes on.
  SleepAwaiter Yield();

  // Calls `on_ready` whenever `fd` is readable (level-triggered). Real mode.
  void WatchFd(int fd, absl::AnyInvocable<void()> on_ready);
  void UnwatchFd(int fd);
  void AddPoller(Poller* poller);
  void RemovePoller(Poller* poller);

  // Moves with every turn; a heartbeat is sent only if it moved.
  uint64_t turns() const { return turns_; }
  // Hash of the history so far (simulated): equal for equal seeds.
  uint64_t trace_hash() const { return trace_hash_; }
  void MixTrace(uint64_t value);
  // Seeded randomness of a simulated loop (delays, drops); not for production decisions.
  uint64_t SimRandom();

 private:
  friend class loop_internal::Waiter;
  friend void task_internal::ContinueWith(Loop*, std::coroutine_handle<>);
  friend void task_internal::RootFinished(Loop*, std::coroutine_handle<>);
  struct Root {
    NodeId node;
    uint64_t sequence;  // tells a new frame from an old one at the same address
  };
  struct FdWatch {
    int fd;
    std::shared_ptr<absl::AnyInvocable<void()>> on_ready;
  };

  Loop(bool simulated, uint64_t seed);
  void Resume(NodeId node, std::coroutine_handle<> handle);
  void Continue(std::coroutine_handle<> handle);
  void MakeReady(loop_internal::Waiter* waiter);
  void DestroyFinished();
  bool RunPosted();
  void FireTimers();
  void RunOneReady();
  bool Turn();  // one round over posted, timers, pollers, ready; false if nothing ran
  void SleepUntilEvent();
  bool AdvanceVirtualClock(Time end);

  const bool simulated_;
  bool stopped_ = false;
  uint64_t rng_;
  uint64_t trace_hash_ = 0xcbf29ce484222325ull;
  uint64_t turns_ = 0;
  uint64_t timer_sequence_ = 0;
  uint64_t root_sequence_ = 0;
  Time virtual_now_{};

  std::coroutine_handle<> next_;  // trampoline
  // What comes and goes with every wait; freed nodes are kept for the next.
  std::pmr::unsynchronized_pool_resource nodes_memory_;
  std::pmr::deque<loop_internal::Waiter*> ready_{&nodes_memory_};
  std::pmr::map<std::pair<Time, uint64_t>, loop_internal::Waiter*> timers_{&nodes_memory_};
  std::unordered_map<void*, Root> roots_;
  std::unordered_map<NodeId, std::unordered_set<void*>> nodes_;
  std::vector<std::coroutine_handle<>> finished_;
  std::optional<NodeId> running_node_;
  std::vector<NodeId> kills_;

  std::vector<absl::AnyInvocable<void()>> running_posted_;  // taken out of posted_ for a turn
  std::vector<Poller*> pollers_;
  std::unordered_map<int, FdWatch> watches_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;

  absl::Mutex posted_mutex_;
  std::vector<absl::AnyInvocable<void()>> posted_ ABSL_GUARDED_BY(posted_mutex_);
  bool wake_pending_ ABSL_GUARDED_BY(posted_mutex_) = false;
};

class Loop::SleepAwaiter {
 public:
  SleepAwaiter(Loop& loop, std::optional<Time> until) : until_(until), waiter_(loop) {}
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter_.Suspend(handle, until_.value_or(kNever));
    if (!until_) waiter_.WakeUp();
  }
  void await_resume() const {}

 private:
  std::optional<Time> until_;
  loop_internal::Waiter waiter_;
};

}  // namespace bottega
