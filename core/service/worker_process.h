#pragma once

#include <memory>
#include <string>

#include "core/base/status.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/packed_model.h"
#include "core/service/router_session.h"
#include "core/service/service_process.h"
#include "core/transport/transport.h"

namespace bottega {

// Which model, in which format.
struct ModelOptions {
  std::string dir;  // Hugging Face form, or packed
  std::string cache;
  std::string weights;  // "": the packed one's own, else bf16
};
void AddModelOptions(OptionTable& table, ModelOptions* options);

// The packed model to serve, packed now if need be, with a bar on stderr.
absl::StatusOr<std::shared_ptr<const PackedModel>> OpenModel(const ModelOptions& options,
                                                             const RegionReading& reading = {});

// How this machine computes.
struct ComputeOptions {
  std::string row_type = "bf16";
  std::string isa;      // "": the best of this machine
  int64_t threads = 0;  // 0: one per core
};
// What `threads` means may differ from the default, one per core.
void AddComputeOptions(OptionTable& table, ComputeOptions* options,
                       const char* threads_help = "compute threads; 0: one per core");

// The threads and ISA that compute, chosen once at start.
class Compute {
 public:
  static absl::StatusOr<std::unique_ptr<Compute>> Make(const ComputeOptions& options);
  const Cpu& cpu() const { return cpu_; }
  DType row_type() const { return row_type_; }

 private:
  Compute(Isa isa, int threads, DType row_type)
      : pool_(threads), cpu_(MakeCpu(isa, &pool_)), row_type_(row_type) {}
  ThreadPool pool_;
  Cpu cpu_;
  DType row_type_;
};

// How a process that has `context` reads its weights.
RegionReading ReadingOf(const ServiceContext& context, const Compute& compute);

// "detailed": metrics by (layer, expert) and by peer too.
void AddMoeMetricsOption(OptionTable& table, std::string* moe_metrics);

// What the programs of attention and expert workers are told alike.
struct WorkerOptions {
  ProcessOptions process;
  ModelOptions model;
  ComputeOptions compute;
  std::string router = "127.0.0.1:50061";
  std::string exchange = "auto";  // UcxOptions
  std::string exchange_devices = "lo";
  std::string moe_metrics = "basic";
};
void AddWorkerOptions(OptionTable& table, WorkerOptions* options);

// A worker's process: a ServiceProcess with transport, compute threads and model.
class WorkerProcess {
 public:
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(Role role,
                                                              const WorkerOptions& options);

  ServiceProcess& process() { return *process_; }
  ServiceContext& context() { return process_->context(); }
  Transport& transport() { return *transport_; }
  const std::shared_ptr<const PackedModel>& model() const { return model_; }
  const Cpu& cpu() const { return compute_->cpu(); }
  DType row_type() const { return compute_->row_type(); }
  std::string listen() const { return process_->listen(); }
  std::string admin_address() const { return process_->admin_address(); }
  bool detailed_metrics() const { return options_.moe_metrics == "detailed"; }
  RouterSessionOptions router() const { return {.router_address = options_.router}; }
  void Fail(absl::Status why) { process_->Fail(std::move(why)); }

  // ServiceProcess::Run; `ready` decides between "ready" and "loading".
  absl::Status Run(std::function<Task<absl::Status>(Time deadline)> drain,
                   std::function<bool()> ready);

 private:
  explicit WorkerProcess(WorkerOptions options) : options_(std::move(options)) {}

  WorkerOptions options_;
  std::unique_ptr<ServiceProcess> process_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Compute> compute_;
  std::shared_ptr<const PackedModel> model_;
};

// A worker server's life in its process: start, join the router, serve until a signal has drained
// it.
template <class Server>
absl::Status RunWorker(WorkerProcess& process, Server& server) {
  RETURN_IF_ERROR(server.Start());
  process.process().ReportWith([&server](Duration span) { return server.BusyLine(span); });
  server.Join(process.router(), [&process](absl::Status why) { process.Fail(std::move(why)); });
  const absl::Status end = process.Run([&server](Time deadline) { return server.Drain(deadline); },
                                       [&server] { return server.ready(); });
  server.Stop();
  return end;
}

}  // namespace bottega
