#include "core/service/worker_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>

#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/model/packer.h"
#include "core/service/progress_bar.h"
#include "core/transport/faulty_transport.h"
#include "core/transport/ucx_transport.h"

namespace bottega {

void AddModelOptions(OptionTable& table, ModelOptions* o) {
  table.Add("model", &o->dir, "model directory: Hugging Face form, or packed (or give DIR)")
      .Add("model-cache", &o->cache, "where models are packed to (default: the XDG cache)")
      .Add("weights", &o->weights, "format of the weights (default bf16)")
      .OneOf({"", "f32", "bf16", "int8", "int4"});
}

void AddComputeOptions(OptionTable& table, ComputeOptions* o, const char* threads_help) {
  table.Add("row-type", &o->row_type, "type of exchanged rows and of the KV cache")
      .OneOf({"f32", "bf16"})
      .Add("isa", &o->isa, "instruction set (default: the best of this machine)")
      .OneOf({"", "scalar", "avx2", "avx512"})
      .Add("threads", &o->threads, threads_help)
      .Range(0, 1024);
}

void AddMoeMetricsOption(OptionTable& table, std::string* moe_metrics) {
  table.Add("moe-metrics", moe_metrics, "detailed: also rows by layer and expert, times by peer")
      .OneOf({"basic", "detailed"});
}

void AddWorkerOptions(OptionTable& table, WorkerOptions* o) {
  table.Positional("DIR", 0, 1);
  AddModelOptions(table, &o->model);
  AddComputeOptions(table, &o->compute);
  AddProcessOptions(table, &o->process, "gRPC port");
  table.Add("router", &o->router, "host:port of the router, or of several by commas")
      .Add("exchange", &o->exchange,
           "data plane: auto (shared memory on one host, else TCP), shm, tcp, or a UCX_TLS list")
      .Add("exchange-devices", &o->exchange_devices, "its network devices (UCX_NET_DEVICES)");
  AddMoeMetricsOption(table, &o->moe_metrics);
}

absl::StatusOr<std::shared_ptr<const PackedModel>> OpenModel(const ModelOptions& options,
                                                             const RegionReading& reading) {
  if (options.dir.empty()) {
    return MakeError(Reason::kInvalidValue, "no model: give its directory as DIR or --model");
  }
  CacheOptions cache{.cache = options.cache};
  if (!options.weights.empty()) {
    ASSIGN_OR_RETURN(cache.weights, ParseWeightFormat(options.weights));
  }
  std::optional<ProgressBar> bar;  // only if there is something to pack
  cache.progress = [&bar](uint64_t done, uint64_t total) {
    if (!bar) bar.emplace("packing the model");
    bar->Update(done, total);
  };
  cache.note = [](std::string_view line) {
    std::fprintf(stderr, "%s\n", std::string(line).c_str());
  };
  ASSIGN_OR_RETURN(const std::filesystem::path packed, PackedFor(options.dir, cache));
  return PackedModel::Open(packed, reading);
}

RegionReading ReadingOf(const ServiceContext& context, const Compute& compute) {
  return {.pool = compute.cpu().pool, .progress = context.load, .faults = &context.faults};
}

absl::StatusOr<std::unique_ptr<Compute>> Compute::Make(const ComputeOptions& options) {
  ASSIGN_OR_RETURN(const DType row_type, ParseDType(options.row_type));
  Isa isa = BestIsa();
  if (!options.isa.empty()) {
    ASSIGN_OR_RETURN(isa, ParseIsa(options.isa));
  }
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int threads = options.threads > 0 ? static_cast<int>(options.threads) : cores;
  return std::unique_ptr<Compute>(new Compute(isa, threads, row_type));
}

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(Role role,
                                                                    const WorkerOptions& options) {
  std::unique_ptr<WorkerProcess> worker(new WorkerProcess(options));
  ASSIGN_OR_RETURN(worker->process_, ServiceProcess::Start(role, options.process));
  ASSIGN_OR_RETURN(worker->transport_, UcxTransport::Create(worker->process_->loop(),
                                                            {.exchange = options.exchange,
                                                             .devices = options.exchange_devices}));
#ifdef BOTTEGA_FAULT_POINTS
  ServiceContext& context = worker->process_->context();
  worker->transport_ = std::make_unique<FaultyTransport>(context.loop, context.node, context.faults,
                                                         std::move(worker->transport_));
#endif
  ASSIGN_OR_RETURN(worker->compute_, Compute::Make(options.compute));
  ASSIGN_OR_RETURN(worker->model_,
                   OpenModel(options.model, ReadingOf(worker->context(), *worker->compute_)));
  worker->process_->SetNumericsId(
      fmt::format("{}-{}", worker->model_->numerics_base(), options.compute.row_type));
  return worker;
}

absl::Status WorkerProcess::Run(std::function<Task<absl::Status>(Time)> drain,
                                std::function<bool()> ready) {
  return process_->Run(std::move(drain), [ready = std::move(ready)]() -> std::string {
    return ready() ? "ready" : "loading";
  });
}

}  // namespace bottega
