#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/loop.h"
#include "core/exchange/exchange_layout.h"
#include "core/transport/transport.h"

namespace bottega {

// An attention worker that is paired with us.
struct Pair {
  Incarnation attention;
  uint64_t session_key = 0;
  std::string name;
  EndpointId endpoint;            // ours of the pair
  std::string transport;          // its kind
  uint32_t credits = 0;           // rows it may have here at once
  uint32_t rows = 0;              // rows it has here: queued or in work
  bool gone = false;              // stream or endpoint ended: what it sent is not worth computing
  std::function<void()> on_gone;  // ends the stream; whoever sets it clears it
};

// A checked FORWARD that waits.
struct Arrival {
  FrameBuffer frame;
  FrameView view;  // into frame
  std::shared_ptr<Pair> pair;
  Time arrived{};
  Time expires = kNever;
  Time offered = kNever;  // of a trial: when its asker was told first

  bool trial() const { return view.reason() == FrameReason::kTrial; }
};

// What has come and is not answered, in two queues: decode is served first. Rows on trial
// (FrameReason::kTrial) wait beside them until they are granted, one frame at a time. Bounded by
// the credits of the pairs. Loop thread only.
class Arrivals {
 public:
  explicit Arrivals(Loop& loop) : slot_(loop) {}

  void Push(Arrival arrival);
  // Into the empty `taken`: the oldest of `phase` and, merged with it, what else waits for the same
  // layer in that phase, up to rows_max entries (the oldest always); a trial only by itself.
  // Nothing if nothing waits. What is taken counts as here until Done.
  void Take(FramePhase phase, size_t rows_max, std::vector<Arrival>* taken);
  void Done(const Arrival& arrival);
  // Is this frame here, waiting or in work?
  bool Holds(Incarnation sender, uint64_t sequence) const;
  // Throws away what waits of a pair that is gone.
  void Drop(const Pair& pair);

  // The trial that may come next; null while one is granted and not done, or if none waits.
  Arrival* next_trial() { return trial_granted_ || trials_.empty() ? nullptr : &trials_.front(); }
  // The next trial, if it is this one, joins its queue.
  void Grant(Incarnation sender, uint64_t sequence);
  // Throws away the next trial.
  void DropTrial();

  bool waiting(FramePhase phase) const { return !queue(phase).empty(); }
  bool empty() const { return decode_.empty() && prefill_.empty(); }
  size_t rows() const { return rows_; }  // entries here
  // Wakes one waiter at the next Push, or at Interrupt.
  Slot& slot() { return slot_; }

 private:
  // Its rows count no more.
  void Release(const Arrival& arrival);
  std::vector<Arrival>& queue(FramePhase phase) {
    return phase == FramePhase::kDecode ? decode_ : prefill_;
  }
  const std::vector<Arrival>& queue(FramePhase phase) const {
    return phase == FramePhase::kDecode ? decode_ : prefill_;
  }

  // Oldest first. No deque: one would allocate for every frame, and what is taken leaves gaps
  // anywhere.
  std::vector<Arrival> decode_;
  std::vector<Arrival> prefill_;
  std::deque<Arrival> trials_;                          // not granted
  bool trial_granted_ = false;                          // one, and it is not done
  std::vector<std::pair<uint64_t, uint64_t>> in_work_;  // (sender, sequence)
  size_t rows_ = 0;
  Slot slot_;
};

}  // namespace bottega
