#include "cli/synth.h"

#include <cstdio>
#include <optional>
#include <string>

#include "cli/packed_summary.h"
#include "core/base/status.h"
#include "core/model/synthesiser.h"
#include "core/model/synthetic_shape.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/progress_bar.h"

namespace bottega {
namespace {

struct SynthConfig {
  std::string shape = "enggpt2";
  std::string layers = "all";
  std::string weights = "bf16";
  int64_t seed = 1;
  int64_t threads = 0;
};

absl::Status Synth(const std::string& out, const SynthConfig& config) {
  std::optional<int64_t> layers;
  if (config.layers != "all") {
    auto count = ParseCount(config.layers);
    if (!count.ok()) {
      return absl::InvalidArgumentError("layers is \"" + config.layers +
                                        "\"; expected a whole number or \"all\"");
    }
    layers = *count;
  }
  ASSIGN_OR_RETURN(const std::string shape, SyntheticShape(config.shape, layers));
  SynthesisOptions options;
  ASSIGN_OR_RETURN(options.weights, ParseWeightFormat(config.weights));
  options.seed = static_cast<uint64_t>(config.seed);
  options.threads = static_cast<int>(config.threads);
  {
    ProgressBar bar("writing");
    options.progress = [&bar](uint64_t done, uint64_t total) { bar.Update(done, total); };
    RETURN_IF_ERROR(SynthesiseModel(shape, out, options));
  }
  return PrintPackedSummary(out);
}

}  // namespace

int RunSynth(int argc, const char* const* argv) {
  SynthConfig config;
  OptionTable table("bottega synth",
                    "Writes a model of random weights, which answers nonsense at the speed of the "
                    "real one, in the form that is served into the new directory OUT.");
  table.Add("shape", &config.shape,
            "enggpt2, qwen3-30b-a3b, or the path of a config.json (enggpt_moe or qwen3_moe)");
  table.Add("layers", &config.layers, "layers, from the first; at most those of the shape");
  table.Add("weights", &config.weights, "format of the weights")
      .OneOf({"f32", "bf16", "int8", "int4"});
  table.Add("seed", &config.seed, "equal seeds make equal models");
  table.Add("threads", &config.threads, "threads; 0: those of the machine, at most 8")
      .Range(0, 1024);
  table.Positional("OUT", 1, 1);
  auto outcome = table.Parse(argc, argv);
  if (!outcome.ok()) return ExitCode(outcome.status());
  if (!outcome->print_and_exit.empty()) {
    std::fputs(outcome->print_and_exit.c_str(), stdout);
    return 0;
  }
  return ExitCode(Synth(outcome->positional[0], config));
}

}  // namespace bottega
