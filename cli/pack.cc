#include "cli/pack.h"

#include <cstdio>
#include <string>

#include "cli/packed_summary.h"
#include "core/base/status.h"
#include "core/model/packer.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/progress_bar.h"

namespace bottega {
namespace {

absl::Status Pack(const std::string& dir, const std::string& out, const std::string& weights,
                  int64_t threads) {
  PackOptions options;
  options.threads = static_cast<int>(threads);
  ASSIGN_OR_RETURN(options.weights, ParseWeightFormat(weights));
  {
    ProgressBar bar("packing");
    options.progress = [&bar](uint64_t done, uint64_t total) { bar.Update(done, total); };
    RETURN_IF_ERROR(PackModel(dir, out, options));
  }
  return PrintPackedSummary(out);
}

}  // namespace

int RunPack(int argc, const char* const* argv) {
  std::string weights = "bf16";
  int64_t threads = 0;
  OptionTable table("bottega pack",
                    "Writes the Hugging Face directory DIR in the form that is served into the new "
                    "directory OUT. Run again after an interruption, it goes on where it was.");
  table.Add("weights", &weights, "format of the weights").OneOf({"f32", "bf16", "int8", "int4"});
  table.Add("threads", &threads, "threads; 0: those of the machine, at most 8").Range(0, 1024);
  table.Positional("DIR OUT", 2, 2);
  auto outcome = table.Parse(argc, argv);
  if (!outcome.ok()) return ExitCode(outcome.status());
  if (!outcome->print_and_exit.empty()) {
    std::fputs(outcome->print_and_exit.c_str(), stdout);
    return 0;
  }
  return ExitCode(Pack(outcome->positional[0], outcome->positional[1], weights, threads));
}

}  // namespace bottega
