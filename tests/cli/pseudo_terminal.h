#pragma once

#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "core/base/check.h"

namespace bottega {

// A terminal without a person: what a program sees at `terminal`, a test types and reads.
class PseudoTerminal {
 public:
  PseudoTerminal() {
    setenv("TERM", "xterm", 1);
    CHECK(openpty(&keyboard_, &terminal_, nullptr, nullptr, nullptr) == 0);
  }
  ~PseudoTerminal() {
    HangUp();
    close(terminal_);
  }
  PseudoTerminal(const PseudoTerminal&) = delete;

  int terminal() const { return terminal_; }

  void Type(const std::string& keys) {
    CHECK(write(keyboard_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
  }
  // Reads what the terminal shows until `text` has come; returns all of it.
  std::string WaitFor(const std::string& text) {
    std::string shown;
    char byte;
    while (shown.find(text) == std::string::npos && read(keyboard_, &byte, 1) == 1) shown += byte;
    return shown;
  }
  // A prompt comes a moment earlier than its editor; until then the kernel echoes what is typed.
  std::string WaitForPrompt(const std::string& prompt) {
    std::string shown = WaitFor(prompt);
    termios mode;
    while (tcgetattr(keyboard_, &mode) == 0 && (mode.c_lflag & ICANON)) std::this_thread::yield();
    return shown;
  }
  void HangUp() {
    if (keyboard_ >= 0) close(keyboard_);
    keyboard_ = -1;
  }

 private:
  int keyboard_ = -1;
  int terminal_ = -1;
};

}  // namespace bottega
