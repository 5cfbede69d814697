#include "core/base/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace bottega {

namespace task_internal {
void ContinueWith(Loop* loop, std::coroutine_handle<> handle) { loop->Continue(handle); }
void RootFinished(Loop* loop, std::coroutine_handle<> root) { loop->finished_.push_back(root); }
}  // namespace task_internal

namespace loop_internal {

Waiter::~Waiter() {
  if (timer_) loop_.timers_.erase(*timer_);
  if (ready_)
    std::replace(loop_.ready_.begin(), loop_.ready_.end(), this, static_cast<Waiter*>(nullptr));
}

void Waiter::Suspend(std::coroutine_handle<> handle, Time deadline) {
  CHECK(loop_.running_node_.has_value());
  handle_ = handle;
  node_ = *loop_.running_node_;
  if (deadline == kNever) return;
  timer_ = {deadline, ++loop_.timer_sequence_};
  loop_.timers_.emplace(*timer_, this);
}

void Waiter::WakeUp() {
  if (ready_) {  // its time came in the same turn: the wake-up wins
    timed_out_ = false;
    return;
  }
  if (timer_) {
    loop_.timers_.erase(*timer_);
    timer_.reset();
  }
  loop_.MakeReady(this);
}

}  // namespace loop_internal

void Slot::Wake() {
  if (waiter_ == nullptr) {
    signalled_ = true;
    return;
  }
  std::exchange(waiter_, nullptr)->WakeUp();
}

std::unique_ptr<Loop> Loop::Real() { return std::unique_ptr<Loop>(new Loop(false, 0)); }
std::unique_ptr<Loop> Loop::Simulated(uint64_t seed) {
  return std::unique_ptr<Loop>(new Loop(true, seed));
}

Loop::Loop(bool simulated, uint64_t seed) : simulated_(simulated), rng_(seed) {
  if (simulated_) return;
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(epoll_fd_ >= 0 && wake_fd_ >= 0);
  epoll_event event{.events = EPOLLIN, .data = {.fd = wake_fd_}};
  CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &event) == 0);
}

Loop::~Loop() {
  while (!nodes_.empty()) Kill(nodes_.begin()->first);
  CHECK(pollers_.empty());
  CHECK(timers_.empty());
  if (epoll_fd_ >= 0) close(epoll_fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
}

Time Loop::Now() const {
  if (simulated_) return virtual_now_;
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return Time(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

void Loop::Spawn(NodeId node, Task<void> task) {
  auto handle = task.Release();
  handle.promise().loop = this;
  const uint64_t sequence = ++root_sequence_;
  roots_[handle.address()] = Root{node, sequence};
  nodes_[node].insert(handle.address());
  Post([this, sequence, address = handle.address()] {
    auto root = roots_.find(address);
    if (root == roots_.end() || root->second.sequence != sequence)
      return;  // killed before it began
    Resume(root->second.node, std::coroutine_handle<>::from_address(address));
  });
}

void Loop::Kill(NodeId node) {
  if (running_node_ == node) {
    kills_.push_back(node);
    return;
  }
  auto it = nodes_.find(node);
  if (it == nodes_.end()) return;
  // Oldest first, not by address: destructors may schedule, and a seed repeats its history.
  std::map<uint64_t, void*> frames;
  for (void* frame : it->second) frames.emplace(roots_.at(frame).sequence, frame);
  nodes_.erase(it);
  for (auto& [sequence, frame] : frames) roots_.erase(frame);
  for (auto& [sequence, frame] : frames) std::coroutine_handle<>::from_address(frame).destroy();
}

size_t Loop::tasks(NodeId node) const {
  auto it = nodes_.find(node);
  return it == nodes_.end() ? 0 : it->second.size();
}

void Loop::Post(absl::AnyInvocable<void()> fn) {
  absl::MutexLock lock(&posted_mutex_);
  posted_.push_back(std::move(fn));
  if (simulated_ || wake_pending_) return;
  wake_pending_ = true;
  const uint64_t one = 1;
  CHECK(write(wake_fd_, &one, sizeof one) == sizeof one);
}

void Loop::Stop() {
  Post([this] { stopped_ = true; });
}

void Loop::Continue(std::coroutine_handle<> handle) {
  CHECK(!next_);
  next_ = handle;
}

void Loop::Resume(NodeId node, std::coroutine_handle<> handle) {
  running_node_ = node;
  next_ = handle;
  while (next_) std::exchange(next_, {}).resume();
  DestroyFinished();
  running_node_.reset();
}

void Loop::DestroyFinished() {
  while (!finished_.empty()) {
    std::coroutine_handle<> root = finished_.back();
    finished_.pop_back();
    auto it = roots_.find(root.address());
    CHECK(it != roots_.end());
    auto node = nodes_.find(it->second.node);
    node->second.erase(root.address());
    if (node->second.empty()) nodes_.erase(node);
    roots_.erase(it);
    root.destroy();
  }
}

void Loop::MakeReady(loop_internal::Waiter* waiter) {
  CHECK(!waiter->ready_);
  waiter->ready_ = true;
  ready_.push_back(waiter);
}

bool Loop::RunPosted() {
  {
    absl::MutexLock lock(&posted_mutex_);
    running_posted_.swap(posted_);
  }
  for (auto& fn : running_posted_) fn();
  const bool ran = !running_posted_.empty();
  running_posted_.clear();
  return ran;
}

void Loop::FireTimers() {
  const Time now = Now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    loop_internal::Waiter* waiter = timers_.begin()->second;
    timers_.erase(timers_.begin());
    waiter->timer_.reset();
    waiter->timed_out_ = true;
    MakeReady(waiter);
  }
}

uint64_t Loop::SimRandom() {
  // splitmix64 (Steele, Lea, Flood 2014)
  uint64_t z = (rng_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void Loop::MixTrace(uint64_t value) {
  for (int i = 0; i < 8; ++i)
    trace_hash_ = (trace_hash_ ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3ull;
}

void Loop::RunOneReady() {
  if (simulated_ && ready_.size() > 1) {
    const size_t pick = SimRandom() % ready_.size();
    MixTrace(pick);
    std::swap(ready_.front(), ready_[pick]);
  }
  loop_internal::Waiter* waiter = ready_.front();
  ready_.pop_front();
  if (waiter == nullptr) return;  // its frame was destroyed
  waiter->ready_ = false;
  Resume(waiter->node_, waiter->handle_);
}

bool Loop::Turn() {
  ++turns_;
  bool ran = RunPosted();
  FireTimers();
  for (size_t i = 0; i < pollers_.size(); ++i) ran |= pollers_[i]->Progress();
  // Bounded, so that posts, timers and pollers get their turn under load, and between the pieces of
  // long work: what becomes ready meanwhile, by Yield above all, waits for the next turn. One at a
  // time when simulated, so that every pick sees the full ready list.
  for (size_t n = std::min<size_t>(simulated_ ? 1 : 64, ready_.size()); n > 0; --n) {
    RunOneReady();
    ran = true;
  }
  for (NodeId node : std::exchange(kills_, {})) Kill(node);
  return ran;
}

void Loop::Run() {
  stopped_ = false;
  while (!stopped_) {
    if (Turn() || stopped_) continue;
    if (!simulated_) {
      SleepUntilEvent();
    } else if (!AdvanceVirtualClock(kNever)) {
      return;
    }
  }
}

void Loop::RunUntil(Time end) {
  CHECK(simulated_);
  stopped_ = false;
  while (!stopped_) {
    if (!Turn() && !AdvanceVirtualClock(end)) break;
  }
  if (virtual_now_ < end) virtual_now_ = end;
}

bool Loop::AdvanceVirtualClock(Time end) {
  if (timers_.empty() || timers_.begin()->first.first > end) return false;
  virtual_now_ = std::max(virtual_now_, timers_.begin()->first.first);
  MixTrace(static_cast<uint64_t>(virtual_now_.time_since_epoch().count()));
  return true;
}

void Loop::SleepUntilEvent() {
  for (Poller* poller : pollers_) {
    if (!poller->Arm()) return;
  }
  timespec timeout{};
  timespec* timeout_or_null = nullptr;
  if (!timers_.empty()) {
    const Duration left = std::max(Duration::zero(), timers_.begin()->first.first - Now());
    timeout.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(left).count();
    timeout.tv_nsec = (left % std::chrono::seconds(1)).count();
    timeout_or_null = &timeout;
  }
  epoll_event events[32];
  const int n = epoll_pwait2(epoll_fd_, events, 32, timeout_or_null, nullptr);
  CHECK(n >= 0 || errno == EINTR);
  for (int i = 0; i < n; ++i) {
    const int fd = events[i].data.fd;
    if (fd == wake_fd_) {
      absl::MutexLock lock(&posted_mutex_);
      uint64_t count;
      CHECK(read(wake_fd_, &count, sizeof count) == sizeof count);
      wake_pending_ = false;
    } else if (auto it = watches_.find(fd); it != watches_.end()) {
      auto on_ready = it->second.on_ready;  // may unwatch itself
      (*on_ready)();
    }
  }
}

void Loop::WatchFd(int fd, absl::AnyInvocable<void()> on_ready) {
  CHECK(!simulated_);
  watches_[fd] = {fd, std::make_shared<absl::AnyInvocable<void()>>(std::move(on_ready))};
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  CHECK(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0);
}

void Loop::UnwatchFd(int fd) {
  if (watches_.erase(fd) > 0) epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
}

void Loop::AddPoller(Poller* poller) {
  pollers_.push_back(poller);
  if (!simulated_) WatchFd(poller->fd(), [] {});
}

void Loop::RemovePoller(Poller* poller) {
  UnwatchFd(poller->fd());
  std::erase(pollers_, poller);
}

Loop::SleepAwaiter Loop::SleepUntil(Time t) { return SleepAwaiter(*this, t); }
Loop::SleepAwaiter Loop::Sleep(Duration d) { return SleepAwaiter(*this, Now() + d); }
Loop::SleepAwaiter Loop::Yield() { return SleepAwaiter(*this, std::nullopt); }

}  // namespace bottega
