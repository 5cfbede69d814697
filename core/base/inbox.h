#pragma once

#include <deque>
#include <utility>

#include "absl/status/statusor.h"
#include "core/base/loop.h"

namespace bottega {

// A queue into one coroutine, with a limit. Loop thread only; other threads Post a Push.
template <class T>
class Inbox {
 public:
  Inbox(Loop& loop, size_t limit) : slot_(loop), limit_(limit) {}

  // False when full or closed: the item was not taken.
  bool Push(T item) {
    if (!closed_.ok() || items_.size() >= limit_) return false;
    items_.push_back(std::move(item));
    slot_.Wake();
    return true;
  }

  // What is queued can still be received; then Receive returns `why` (not ok). DeadlineExceeded is
  // Receive's own: whoever looks at something else every so often would take an end that a peer
  // called so for his own time, and never wait again. It becomes Unavailable.
  void Close(absl::Status why) {
    CHECK(!why.ok());
    if (absl::IsDeadlineExceeded(why)) why = absl::UnavailableError(why.message());
    if (closed_.ok()) closed_ = std::move(why);
    slot_.Wake();
  }

  // The next item, DeadlineExceeded, or the status given to Close. One receiver at a time.
  Task<absl::StatusOr<T>> Receive(Time deadline = kNever) {
    while (items_.empty()) {
      if (!closed_.ok()) co_return closed_;
      absl::Status woken = co_await slot_.Wait(deadline);
      if (!woken.ok() && items_.empty()) co_return woken;
    }
    T item = std::move(items_.front());
    items_.pop_front();
    co_return item;
  }

  std::optional<T> TryReceive() {
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    return item;
  }

  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  bool closed() const { return !closed_.ok(); }

 private:
  Slot slot_;
  size_t limit_;
  std::deque<T> items_;
  absl::Status closed_;
};

}  // namespace bottega
