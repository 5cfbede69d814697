#include "cli/bench.h"

#include <fmt/format.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "cli/bench_options.h"
#include "cli/bench_report.h"
#include "cli/json_file.h"
#include "cli/local_cluster.h"
#include "cli/machine_facts.h"
#include "cli/status_line.h"
#include "core/base/memory_limit.h"
#include "core/base/status.h"
#include "core/model/footprint.h"
#include "core/service/process.h"
#include "core/service/worker_process.h"

namespace bottega {
namespace {

constexpr NodeId kClientNode{2};
constexpr Duration kReadyLook = std::chrono::milliseconds(1);
// Of the capacity that prefill and decode have shown: busy, but no queue that grows.
constexpr double kMixedShare = 0.7;

// Enough for the largest work: unlike requests, the sequences of a measurement must not wait for
// each other's blocks.
absl::Status SizeKvCache(const PackedModel& packed, const std::vector<Work>& works, DType row_type,
                         AttentionConfig* config) {
  const ModelConfig& model = packed.config();
  uint64_t needed = 0;
  for (const Work& work : works) {
    const int64_t tokens = work.TokensOfASequence();
    const int64_t most = config->max_model_len > 0
                             ? std::min(config->max_model_len, model.max_positions)
                             : model.max_positions;
    if (tokens > most) {
      return absl::InvalidArgumentError(fmt::format(
          "{} needs a context of {} tokens; this model has {}", work.Name(), tokens, most));
    }
    needed = std::max(
        needed, static_cast<uint64_t>(work.sequences) * KvBytesOfSequence(model, row_type, tokens));
  }
  RETURN_IF_ERROR(
      CheckBenchMemory(needed, *PackedBytesOf(model, packed.weights()), ReadMemoryLimit().bytes));
  if (config->kv_bytes == 0) {
    config->kv_bytes = std::max(needed, kDefaultKvBytes);
  } else if (config->kv_bytes < needed) {
    return absl::InvalidArgumentError(fmt::format(
        "--kv-cache {} is less than the {} bytes that these works need", config->kv_bytes, needed));
  }
  return absl::OkStatus();
}

// Requests a second that would keep this machine busy all the time: each its prompt and its answer.
double Capacity(const BenchReport& report) {
  double prefill = 0, decode = 0;  // tokens a second
  for (const MeasuredWork& measured : report.works) {
    double& best = measured.work.kind == Work::Kind::kPrefill ? prefill : decode;
    best = std::max(best, Summarise(measured).tokens_per_s);
  }
  return 1 / (report.load.prompt.Mean() / prefill + report.load.answer.Mean() / decode);
}

// What the measuring coroutine works on.
struct Bench {
  Loop& loop;
  LocalCluster& cluster;
  const ServiceContext& client_context;
  const StepCosts& costs;
  const Cpu cpu;
  const BenchRunner::Options runner;
  const int64_t rounds;
  const std::vector<Work> works;
  Time opened;
  StatusLine status;
  BenchReport report;
  absl::Status end;
};

void Print(StatusLine& status, const std::string& text) {
  status.Clear();
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

Task<absl::Status> MeasureWorks(Bench* bench, BenchRunner* runner) {
  if (bench->works.empty()) co_return absl::OkStatus();
  bench->status.Show("warming up");
  absl::StatusOr<Sample> warm = co_await runner->Run(bench->works.front());
  if (!warm.ok()) co_return warm.status();
  Print(bench->status, WorkHeaderText());
  for (const Work& work : bench->works) {
    MeasuredWork measured{.work = work};
    for (int64_t round = 1; round <= bench->rounds; ++round) {
      bench->status.Show(fmt::format("{}, round {} of {}", work.Name(), round, bench->rounds));
      absl::StatusOr<Sample> sample = co_await runner->Run(work);
      if (!sample.ok()) co_return sample.status();
      measured.samples.push_back(*std::move(sample));
    }
    Print(bench->status, WorkText(measured));
    bench->report.works.push_back(std::move(measured));
  }
  co_return absl::OkStatus();
}

Task<absl::Status> MeasureMixed(Bench* bench, BenchRunner* runner) {
  MixedLoad& load = bench->report.load;
  if (load.seconds == 0) co_return absl::OkStatus();
  if (load.requests_per_s == 0) {
    load.requests_per_s =
        std::min(kMixedShare * Capacity(bench->report), kMixedRequestsMax / load.seconds);
  }
  bench->status.Show(
      fmt::format("mixed load, {:.3g} requests/s for {:.3g} s", load.requests_per_s, load.seconds));
  absl::StatusOr<MixedSample> sample = co_await runner->RunMixed(load);
  if (!sample.ok()) co_return sample.status();
  bench->report.mixed = *std::move(sample);
  Print(bench->status, MixedText(load, *bench->report.mixed));
  co_return absl::OkStatus();
}

Task<absl::Status> Measure(Bench* bench) {
  bench->status.Show("loading the weights");
  while (!bench->cluster.ready()) co_await bench->loop.Sleep(kReadyLook);
  bench->report.ready_s = Seconds(bench->loop.Now() - bench->opened);
  bench->status.Show("measuring the machine");
  bench->report.rates = co_await MeasureBesideLoop(&bench->loop, bench->cpu);
  Print(bench->status, HeadText(bench->report));

  std::string address = bench->cluster.attention().address();
  absl::StatusOr<std::unique_ptr<GenerationClient>> client =
      co_await GenerationClient::Connect(&bench->client_context, address);
  if (!client.ok()) co_return client.status();
  BenchRunner runner(bench->loop, **client, bench->costs, bench->cluster.expert_stats(), bench->cpu,
                     bench->runner);
  absl::Status works = co_await MeasureWorks(bench, &runner);
  if (!works.ok()) co_return works;
  absl::Status mixed = co_await MeasureMixed(bench, &runner);
  if (!mixed.ok()) co_return mixed;
  bench->report.pss_bytes = ProportionalSetBytes();
  Print(bench->status, EndText(bench->report));
  co_return absl::OkStatus();
}

Task<void> Main(Bench* bench) {
  bench->end = co_await Measure(bench);
  bench->loop.Stop();
}

BenchReport ReportOf(const PackedModel& model, const Compute& compute,
                     const BenchOptions& options) {
  return {.processor = ProcessorName(),
          .isa = std::string(Name(compute.cpu().isa)),
          .threads = compute.cpu().pool->threads(),
          .directory = options.model.dir,
          .model_type = model.config().model_type,
          .weights = std::string(Name(model.weights())),
          .row_type = std::string(Name(compute.row_type())),
          .digest = model.digest(),
          .layers = model.config().num_layers,
          .experts = model.config().num_experts,
          .temperature = options.temperature,
          .packed_bytes = *PackedBytesOf(model.config(), model.weights())};
}

// What a service is given, where nobody connects, scrapes or arms faults.
struct Process {
  std::unique_ptr<Loop> loop = Loop::Real();
  prometheus::Registry metrics;
  FaultPoints faults;
  LocalNetwork network{*loop};  // the cluster has its own
  ServiceContext context{.loop = *loop,
                         .node = kClientNode,
                         .network = network,
                         .metrics = metrics,
                         .faults = faults,
                         .role = Role::kGateway,
                         .incarnation = NewIncarnation(),
                         .name = "bench",
                         .log = Logger("bench", "bench")};
};

// Ctrl-C has its default effect, here the right one: rows are printed as they are measured, and
// nothing else outlives the process.
absl::Status RunAll(const BenchOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<Work> works, WorksOf(options));
  LeaveNoCoreFile();
  OpenLogSink({.least = LogLevel::kWarning});
  ASSIGN_OR_RETURN(const auto compute, Compute::Make(options.compute));
  ASSIGN_OR_RETURN(const auto model, OpenModel(options.model, {.pool = compute->cpu().pool}));
  LocalClusterOptions cluster_options{.attention = options.attention};
  cluster_options.attention.kv_bytes = options.kv_cache.value;
  RETURN_IF_ERROR(SizeKvCache(*model, works, compute->row_type(), &cluster_options.attention));

  Process process;
  absl::Status refused;
  LocalCluster cluster(process.context, std::move(cluster_options), model, *compute,
                       [&](absl::Status why) {
                         refused = std::move(why);
                         process.loop->Stop();
                       });
  const ServiceContext client_context = cluster.ContextOf(Role::kGateway, kClientNode);
  const StepCosts costs(model->config(), model->weights(), compute->row_type());
  Bench bench{.loop = *process.loop,
              .cluster = cluster,
              .client_context = client_context,
              .costs = costs,
              .cpu = compute->cpu(),
              .runner = {.vocab_size = model->config().vocab_size,
                         .moe_layers = model->config().num_moe_layers(),
                         .temperature = options.temperature,
                         .seed = static_cast<uint64_t>(options.seed)},
              .rounds = options.rounds,
              .works = works,
              .opened = process.loop->Now(),
              .report = ReportOf(*model, *compute, options)};
  RETURN_IF_ERROR(cluster.Start());
  bench.report.numerics_id = cluster.attention().numerics_id();
  bench.report.load = LoadOf(options, cluster.attention().max_model_len());
  process.loop->Spawn(kClientNode, Main(&bench));
  process.loop->Run();
  process.loop->Kill(kClientNode);
  cluster.Stop();
  RETURN_IF_ERROR(refused);
  RETURN_IF_ERROR(bench.end);
  if (options.json.empty()) return absl::OkStatus();
  return WriteJsonFile("--json", options.json, BenchJson(bench.report));
}

}  // namespace

int RunBench(int argc, const char* const* argv) {
  BenchOptions options;
  OptionTable table("bottega bench",
                    "Measures the engine of `bottega serve` in this process: prompts, decode, and "
                    "requests that come at random. Beside each number stands its floor: what "
                    "memory and arithmetic allow, measured just before and after.");
  AddBenchOptions(table, &options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.model.dir = positional.front();
  return ExitCode(RunAll(options));
}

}  // namespace bottega
