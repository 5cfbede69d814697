#pragma once

#include <string_view>

namespace bottega {

// A sub-command of `bottega`: one file, one line in commands.cc.
struct Command {
  std::string_view name;
  std::string_view summary;                       // half a line of `bottega --help`
  int (*run)(int argc, const char* const* argv);  // argv[0] is the name; returns the exit code
};

// The whole program: finds the command and runs it. Exit codes: 0, 1 failure, 2 usage, 3 model
// refused.
int RunBottega(int argc, const char* const* argv);

}  // namespace bottega
