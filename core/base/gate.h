#pragma once

#include "absl/status/status.h"
#include "core/base/loop.h"

namespace bottega {

// Counts what is in flight, so that a stop can wait for it: Enter before work, leave by destroying
// the Pass, Close once to refuse new work and wait for the rest. Its destructor asserts that
// nothing is in flight. Loop thread only.
class Gate {
 public:
  explicit Gate(Loop& loop) : empty_(loop) {}
  ~Gate() { CHECK(inside_ == 0); }

  class Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr && --gate_->inside_ == 0) gate_->empty_.Wake();
    }

   private:
    Gate* gate_;
  };

  // Empty once the gate is closed.
  std::optional<Pass> Enter() {
    if (closed_) return std::nullopt;
    ++inside_;
    return Pass(this);
  }

  Task<absl::Status> Close(Time deadline) {
    closed_ = true;
    while (inside_ > 0) {
      absl::Status woken = co_await empty_.Wait(deadline);
      if (!woken.ok()) co_return woken;
    }
    co_return absl::OkStatus();
  }

  size_t inside() const { return inside_; }
  bool closed() const { return closed_; }

 private:
  Slot empty_;
  size_t inside_ = 0;
  bool closed_ = false;
};

}  // namespace bottega
