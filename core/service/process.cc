#include "core/service/process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "core/base/check.h"
#include "core/base/reason.h"

namespace bottega {
namespace {

sigset_t EndSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

ProcessSignals::ProcessSignals(Loop& loop, std::function<void(int)> drain)
    : loop_(loop), drain_(std::move(drain)) {
  const sigset_t set = EndSignals();
  CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
  fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  CHECK(fd_ >= 0);
  loop_.WatchFd(fd_, [this] {
    signalfd_siginfo info;
    if (read(fd_, &info, sizeof info) != sizeof info) return;
    // From now on the kernel's default action: the next one ends the process even if the loop is
    // stuck.
    const sigset_t set = EndSignals();
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    drain_(static_cast<int>(info.ssi_signo));
  });
}

ProcessSignals::~ProcessSignals() {
  loop_.UnwatchFd(fd_);
  close(fd_);
  const sigset_t set = EndSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void LeaveNoCoreFile() {
  rlimit limit;
  if (getrlimit(RLIMIT_CORE, &limit) != 0) return;
  limit.rlim_cur = 0;  // whoever wants one raises it again
  setrlimit(RLIMIT_CORE, &limit);
}

bool DieWithParent() {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  return getppid() == parent && parent != 1;  // it may have died before the call
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  const std::string message(status.message());
  std::fprintf(stderr, "error: %s\n", message.c_str());
  if (ReasonOf(status) == Reason::kModelRefused) return 3;
  return absl::IsInvalidArgument(status) ? 2 : 1;
}

}  // namespace bottega
