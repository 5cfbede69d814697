#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "cli/interrupt.h"

namespace bottega {

// Lines from a person at a terminal, with editing and a history (libedit). The terminal is in its
// normal state between calls. One thread.
class LineReader {
 public:
  // `in` is a terminal; `interrupt` outlives this.
  LineReader(std::FILE* in, std::FILE* out, Interrupt& interrupt);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  enum class Got {
    kLine,
    kInterrupted,  // Ctrl-C: `line` is what had been typed
    kEnd,          // Ctrl-D on an empty line, or the terminal is gone
  };
  // `line` without its end.
  Got Read(const std::string& prompt, std::string* line);

 private:
  struct Editor;
  const std::unique_ptr<Editor> editor_;
};

}  // namespace bottega
