#include "cli/plan.h"

#include <fmt/format.h>

#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "cli/bench_reader.h"
#include "cli/json_file.h"
#include "cli/machine_rates.h"
#include "cli/plan_report.h"
#include "cli/status_line.h"
#include "core/base/limits.h"
#include "core/base/memory_limit.h"
#include "core/base/status.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packed_model.h"
#include "core/model/packer.h"
#include "core/model/synthetic_shape.h"
#include "core/service/process.h"
#include "core/service/worker_process.h"

namespace bottega {
namespace {

struct Options {
  std::string dir;
  std::string shape;
  ByteCount memory;
  std::string bench;
  int64_t context = PlanQuestion{}.context;
  int64_t sequences = PlanQuestion{}.sequences;
  std::string json;
  ComputeOptions compute;
};

OptionTable Table(Options* o) {
  OptionTable table("bottega plan",
                    "Tells what of a model fits a machine, how fast it will be, and which weight "
                    "format and context to choose.");
  table.Positional("DIR", 0, 1);
  table
      .Add("shape", &o->shape,
           "a model without a directory: enggpt2, qwen3-30b-a3b, or a config.json")
      .Add("memory", &o->memory, "memory to plan for; 0: what this process may use")
      .Add("bench", &o->bench,
           "file of `bottega bench --json`: its rates and shares, not this machine's now")
      .Add("context", &o->context, "context at which decode is foretold")
      .Range(1, 1 << 20)
      .Add("sequences", &o->sequences, "that shall fit at the recommended context")
      .Range(1, limits::kRunningRequestsMax)
      .Add("json", &o->json, "file for the plan");
  AddComputeOptions(table, &o->compute);
  return table;
}

absl::Status ReadModel(const Options& options, PlanReport* report) {
  if (options.dir.empty() == options.shape.empty()) {
    return absl::InvalidArgumentError("which model? Give its directory, or --shape, not both");
  }
  report->servable = options.shape.empty();
  report->model = report->servable ? options.dir : options.shape;
  if (!report->servable) {
    ASSIGN_OR_RETURN(const std::string config, SyntheticShape(options.shape, std::nullopt));
    ASSIGN_OR_RETURN(report->question.config, ParseModelConfig(config, ""));
  } else if (IsPacked(options.dir)) {
    ASSIGN_OR_RETURN(const auto model, PackedModel::Open(options.dir));
    report->question.config = model->config();
    report->question.packed_as = model->weights();
  } else {
    ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(options.dir));
    report->question.config = checkpoint->config();
  }
  return absl::OkStatus();
}

absl::Status ReadMemory(const Options& options, PlanReport* report) {
  report->question.memory_bytes = options.memory.value;
  report->memory_source = "--memory";
  if (options.memory.value != 0) return absl::OkStatus();
  const MemoryLimit limit = ReadMemoryLimit();
  if (limit.bytes == 0) {
    return absl::InvalidArgumentError("this system does not tell its memory; give --memory");
  }
  report->question.memory_bytes = limit.bytes;
  report->memory_source = limit.from_cgroup ? "the limit of this control group" : "this machine";
  return absl::OkStatus();
}

absl::Status ReadRates(const Options& options, PlanReport* report) {
  PlanQuestion& question = report->question;
  if (!options.bench.empty()) {
    ASSIGN_OR_RETURN(BenchFigures figures, ReadBenchFigures(options.bench));
    question.rates = figures.rates;
    question.measured[figures.weights] = std::move(figures.shares);
    report->rates_source = options.bench;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const auto compute, Compute::Make(options.compute));
  StatusLine status;
  status.Show("measuring this machine");
  question.rates = MeasureMachineRates(compute->cpu());
  report->rates_source = fmt::format("measured now: {}, {} threads", Name(compute->cpu().isa),
                                     compute->cpu().pool->threads());
  return absl::OkStatus();
}

absl::Status Plan(const Options& options) {
  RETURN_IF_ERROR(CheckJsonFile("--json", options.json));
  PlanReport report;
  RETURN_IF_ERROR(ReadModel(options, &report));
  RETURN_IF_ERROR(ReadMemory(options, &report));
  ASSIGN_OR_RETURN(report.question.row_type, ParseDType(options.compute.row_type));
  report.question.context = options.context;
  report.question.sequences = options.sequences;
  if (options.context > report.question.config.max_positions) {
    return absl::InvalidArgumentError(fmt::format("--context {}: the model has {}", options.context,
                                                  report.question.config.max_positions));
  }
  RETURN_IF_ERROR(ReadRates(options, &report));
  report.plan = MakePlan(report.question);
  std::fputs(report.Text().c_str(), stdout);
  if (options.json.empty()) return absl::OkStatus();
  return WriteJsonFile("--json", options.json, report.Json());
}

}  // namespace

int RunPlan(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.dir = positional.front();
  return ExitCode(Plan(options));
}

}  // namespace bottega
