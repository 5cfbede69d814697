#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/loop.h"

namespace bottega {

// A program started as a child: its output comes line by line, its end is an event. Loop thread
// only. Destroying it while the child runs kills the child.
class ChildProcess {
 public:
  struct Events {
    std::function<void(std::string_view line)> on_line;  // of stdout and stderr, as they come
    std::function<void(int wait_status)> on_exit;  // as waitpid gives it; output has been read
  };

  // `arguments[0]` is the program's path.
  static absl::StatusOr<std::unique_ptr<ChildProcess>> Start(
      Loop& loop, const std::vector<std::string>& arguments, Events events);
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;

 private:
  ChildProcess(Loop& loop, pid_t pid, int pidfd, int output, Events events);
  void ReadOutput();
  void Reap();

  Loop& loop_;
  pid_t pid_;
  int pidfd_;
  int output_;
  Events events_;
  std::string partial_;  // a line not ended yet
};

// "killed by signal 9", "exit code 3".
std::string DescribeExit(int wait_status);

}  // namespace bottega
