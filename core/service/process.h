#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "core/base/loop.h"

namespace bottega {

// SIGINT and SIGTERM of a program: the first calls `drain` on the loop's thread, the second kills
// the process at once, whatever the loop does. Make it before any other thread starts: it blocks
// the signals, so that every thread inherits the mask, and reads them from a signalfd on the loop.
// One per program.
class ProcessSignals {
 public:
  ProcessSignals(Loop& loop, std::function<void(int signal)> drain);
  ~ProcessSignals();
  ProcessSignals(const ProcessSignals&) = delete;
  ProcessSignals& operator=(const ProcessSignals&) = delete;

 private:
  Loop& loop_;
  std::function<void(int)> drain_;
  int fd_ = -1;
};

// A fatal error ends the process at once: the kernel writes no core file of the many gigabytes that
// are mapped, peers see the sockets close, the supervisor acts.
void LeaveNoCoreFile();

// The kernel kills this process when its parent dies (for children of `bottega up`).
// False if the parent is gone already.
bool DieWithParent();

// Writes `status` to stderr and gives the exit code of conventions: 0, 1 failure, 2 usage, 3 model
// refused.
int ExitCode(const absl::Status& status);

}  // namespace bottega
