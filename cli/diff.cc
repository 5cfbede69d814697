#include "cli/diff.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "cli/trace_diff.h"
#include "cli/trace_reader.h"
#include "core/base/status.h"
#include "core/service/service_process.h"

namespace bottega {
namespace {

constexpr char kSummary[] =
    "Compares two hash traces (--hash-trace FILE of a worker or of `serve`) and names, for each "
    "sequence in both, the first place at which the runs part. The order of lines does not matter: "
    "traces of several workers may be put together with `cat`. What only one trace has is counted "
    "and is no difference (a prefix-cache hit computes nothing).";

void PrintParting(const TraceParting& at, const StageNames& stages, const char* suffix) {
  fmt::print("sequence {:016x} position {} layer {} stage {}: {:08x} {:08x}{}\n", at.sequence,
             at.place.position(), at.place.layer(), stages.Name(at.place.stage()), at.hash_a,
             at.hash_b, suffix);
}

absl::StatusOr<Trace> Read(const std::string& path, StageNames& stages) {
  ASSIGN_OR_RETURN(Trace trace, ReadTrace(path, stages));
  if (trace.cut_off) fmt::print(stderr, "{}: the last line is cut off and left out\n", path);
  return trace;
}

// Whether the trace says one thing only.
bool CheckAgreement(const std::string& path, const Trace& trace, const StageNames& stages) {
  const TraceContradictions found = FindContradictions(trace);
  if (found.places == 0) return true;
  fmt::print("{}: {} places with two results in the same trace; the first of each sequence:\n",
             path, found.places);
  for (const TraceParting& at : found.first) PrintParting(at, stages, " (both in this trace)");
  return false;
}

void PrintOnly(const std::string& path, const TraceCount& count) {
  if (count.entries == 0) return;
  fmt::print("only in {}: {} entries", path, count.entries);
  if (count.sequences > 0) fmt::print(", among them {} whole sequences", count.sequences);
  fmt::print("\n");
}

int Diff(const std::string& path_a, const std::string& path_b) {
  StageNames stages;
  const absl::StatusOr<Trace> a = Read(path_a, stages);
  const absl::StatusOr<Trace> b = a.ok() ? Read(path_b, stages) : a;
  if (!b.ok()) {
    fmt::print(stderr, "bottega diff: {}\n", std::string(b.status().message()));
    return 2;
  }
  const bool a_agrees = CheckAgreement(path_a, *a, stages);
  const bool b_agrees = CheckAgreement(path_b, *b, stages);
  const TraceDiff diff = CompareTraces(*a, *b);
  for (const TraceParting& at : diff.partings) PrintParting(at, stages, "");
  fmt::print("in both: {} entries of {} sequences; {} entries of {} sequences differ\n",
             diff.both.entries, diff.both.sequences, diff.differing.entries,
             diff.differing.sequences);
  PrintOnly(path_a, diff.only_a);
  PrintOnly(path_b, diff.only_b);
  if (diff.both.entries == 0) {
    fmt::print("nothing to compare: were the requests and their seeds the same?\n");
    return 1;
  }
  return a_agrees && b_agrees && diff.partings.empty() ? 0 : 1;
}

}  // namespace

int RunDiff(int argc, const char* const* argv) {
  OptionTable table("bottega diff", kSummary);
  table.Positional("A B", 2, 2);
  std::vector<std::string> files;
  if (const std::optional<int> code = ParseOrExit(table, argc, argv, &files)) return *code;
  return Diff(files[0], files[1]);
}

}  // namespace bottega
