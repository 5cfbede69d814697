#pragma once

#include <signal.h>

namespace bottega {

// Ctrl-C as something to wait for: while this lives, SIGINT kills nobody but makes `fd` readable.
// Make it before any other thread starts (threads inherit the mask). One per program.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  int fd() const { return fd_; }
  // Whether Ctrl-C was pressed since the last call. Blocks nowhere.
  bool Take();

 private:
  sigset_t mask_before_;
  int fd_;
};

}  // namespace bottega
