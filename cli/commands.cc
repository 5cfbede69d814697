#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/bench.h"
#include "cli/chat.h"
#include "cli/command.h"
#include "cli/diff.h"
#include "cli/inspect.h"
#include "cli/pack.h"
#include "cli/plan.h"
#include "cli/serve.h"
#include "cli/status.h"
#include "cli/synth.h"
#include "cli/trace.h"
#include "cli/up.h"

namespace bottega {
namespace {

// In the order of --help.
constexpr Command kCommands[] = {
    {"serve", "serve a model from one process", RunServe},
    {"up", "run a cluster of processes on this machine", RunUp},
    {"status", "members of a cluster, and who serves which experts", RunStatus},
    {"trace", "the way of one request through a cluster", RunTrace},
    {"chat", "talk with a running server", RunChat},
    {"inspect", "what a model directory holds, and whether it fits this machine", RunInspect},
    {"pack", "write a model directory in the form that is served", RunPack},
    {"synth", "write a model of random weights, for measuring", RunSynth},
    {"bench", "how fast a model is here, beside what the machine allows", RunBench},
    {"plan", "what of a model fits a machine, and how fast it will be", RunPlan},
    {"diff", "the first stage at which two hash traces part", RunDiff},
};

void PrintUsage(std::FILE* to) {
  std::fputs("Serves Mixture-of-Experts language models.\n\nusage: bottega COMMAND [OPTIONS]\n\n",
             to);
  for (const Command& command : kCommands) {
    std::fprintf(to, "  %-10.*s%.*s\n", static_cast<int>(command.name.size()), command.name.data(),
                 static_cast<int>(command.summary.size()), command.summary.data());
  }
  std::fputs("\n`bottega COMMAND --help` tells a command's options.\n", to);
}

// How many single edits make `a` into `b`.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t cost = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = row[j];
      row[j] = cost;
    }
  }
  return row.back();
}

}  // namespace

int RunBottega(int argc, const char* const* argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "--help" || name == "-h" || name == "help") {
    PrintUsage(stdout);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (command.name == name) return command.run(argc - 1, argv + 1);
  }
  if (name.empty()) {
    PrintUsage(stderr);
    return 2;
  }
  const Command* nearest = std::min_element(
      std::begin(kCommands), std::end(kCommands), [name](const Command& a, const Command& b) {
        return EditDistance(name, a.name) < EditDistance(name, b.name);
      });
  std::fprintf(stderr, "bottega: no command \"%s\"", argv[1]);
  if (EditDistance(name, nearest->name) <= 2) {
    std::fprintf(stderr, "; did you mean \"%s\"?", nearest->name.data());
  } else {
    std::fputs(".", stderr);
  }
  std::fputs(" `bottega --help` lists them.\n", stderr);
  return 2;
}

}  // namespace bottega
