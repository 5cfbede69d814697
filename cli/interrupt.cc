#include "cli/interrupt.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include "core/base/check.h"

namespace bottega {

Interrupt::Interrupt() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  CHECK(pthread_sigmask(SIG_BLOCK, &set, &mask_before_) == 0);
  fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  CHECK(fd_ >= 0);
}

Interrupt::~Interrupt() {
  Take();
  close(fd_);
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
}

bool Interrupt::Take() {
  bool pressed = false;
  signalfd_siginfo info;
  while (read(fd_, &info, sizeof info) == sizeof info) pressed = true;
  return pressed;
}

}  // namespace bottega
