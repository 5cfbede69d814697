#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"

namespace bottega {

// Named places where a test makes a process misbehave. One object per process, handed down in the
// ServiceContext; nothing here is global. Without BOTTEGA_FAULT_POINTS (the `package` preset) the
// two macros below are constants and the names do not exist in the program.
//
// A plan is `name=action[:value][@condition]`, several joined with commas:
//   ew.before_reply=crash@3           the third hit raises SIGKILL: nothing runs, as in a real kill
//   ew.before_reply=exit:7            exit code 7 at the first hit
//   gw.step=abort                     what a failed CHECK does
//   aw.step=sleep:250ms@p0.01/42      each hit with probability 0.01, seed 42; blocks the thread
//   ew.load=error:disk full@2+        the second hit and all after it return an Internal error
//   ew.reply=corrupt@1                flips one bit of the bytes shown to FAULT_CORRUPT
//   ew.compute=corrupt:ones@1         sets all bits of the first eight: NaN in every format
//   aw.crash_if=crash:517             acts where FAULT_POINT_IF shows the value 517
// Without a condition every hit acts.
class FaultPoints {
 public:
  enum class Action { kCrash, kAbort, kExit, kSleep, kError, kCorrupt };

  // Arms `plan`, beside what is armed already; a name in it replaces that name's plan.
  // InvalidArgument says which part is not understood; then nothing is armed.
  absl::Status Arm(std::string_view plan) ABSL_LOCKS_EXCLUDED(mutex_);
  void Disarm(std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  // Any thread. Ok, the armed error, or no return at all. Use FAULT_POINT.
  absl::Status Hit(std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same for a plan whose value is this number; other numbers do not count as hits.
  absl::Status HitIf(std::string_view name, int64_t value) ABSL_LOCKS_EXCLUDED(mutex_);
  // A process that is simulated ends like this instead of by a signal; Hit then returns Aborted.
  void set_on_crash(std::function<void()> on_crash) { on_crash_ = std::move(on_crash); }
  // Flips a bit of `bytes` if `name` is armed with `corrupt` and this hit is meant.
  void Corrupt(std::string_view name, absl::Span<std::byte> bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  uint64_t hits(std::string_view name) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Of every armed name.
  std::map<std::string, uint64_t> Hits() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Point {
    Action action = Action::kError;
    std::string value;           // exit code, duration or message, as written
    uint64_t first = 1;          // acts from this hit ...
    uint64_t last = UINT64_MAX;  // ... to this one, counted from 1
    double probability = 1;
    uint64_t random = 0;  // splitmix64 state
    uint64_t hits = 0;
  };
  static absl::Status ParseOne(std::string_view text, std::string* name, Point* point);
  static bool Acts(Point& point);
  absl::Status Act(std::string_view name, const Point& armed) const;

  std::function<void()> on_crash_;
  // Armed. The data path is full of points, which take no lock while none is.
  std::atomic<bool> any_ = false;
  mutable absl::Mutex mutex_;
  std::map<std::string, Point, std::less<>> points_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace bottega

// FAULT_POINT(context.faults, "ew.before_reply") is an absl::Status.
#ifdef BOTTEGA_FAULT_POINTS
#define FAULT_POINT(faults, name) ((faults).Hit(name))
#define FAULT_POINT_IF(faults, name, value) ((faults).HitIf(name, value))
#define FAULT_CORRUPT(faults, name, bytes) ((faults).Corrupt(name, bytes))
#else
#define FAULT_POINT(faults, name) (absl::OkStatus())
#define FAULT_POINT_IF(faults, name, value) (absl::OkStatus())
#define FAULT_CORRUPT(faults, name, bytes) ((void)0)
#endif
