#pragma once

#include <memory>
#include <optional>
#include <string>

#include "core/base/fault_point.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/packed_model.h"
#include "core/service/admin_http.h"
#include "core/service/context.h"
#include "core/service/grpc_network.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/router_session.h"
#include "core/transport/transport.h"
#include "observability/metrics.h"

namespace bottega {

// What the programs of attention and expert workers are told alike.
struct WorkerOptions {
  std::string model;  // directory, packed or not
  std::string model_cache;
  std::string weights;  // "", "f32", "bf16"
  std::string row_type = "bf16";
  std::string isa;      // "": the best of this machine
  int64_t threads = 0;  // 0: one per core
  std::string router = "127.0.0.1:50061";
  std::string name;
  std::string host = "127.0.0.1";
  int64_t port = 0;
  int64_t admin_port = 0;
  std::string exchange = "tcp";  // UCX_TLS
  std::string exchange_devices = "lo";
  std::string faults;  // fault points, armed at start
  bool die_with_parent = false;
  Duration drain_timeout = std::chrono::seconds(30);
};
void AddWorkerOptions(OptionTable& table, WorkerOptions* options);

// The threads and ISA that compute, chosen once at start.
class Compute {
 public:
  static absl::StatusOr<std::unique_ptr<Compute>> Make(const std::string& isa, int64_t threads);
  const Cpu& cpu() const { return cpu_; }

 private:
  Compute(Isa isa, int threads) : pool_(threads), cpu_(MakeCpu(isa, &pool_)) {}
  ThreadPool pool_;
  Cpu cpu_;
};

// A worker's process around its server: loop, network, transport, admin port, model. Made in that
// order, hard and early: the admin port answers "loading" before the model is opened.
class WorkerProcess {
 public:
  static absl::StatusOr<std::unique_ptr<WorkerProcess>> Start(Role role,
                                                              const WorkerOptions& options);

  ServiceContext& context() { return *context_; }
  Loop& loop() { return *loop_; }
  Transport& transport() { return *transport_; }
  const std::shared_ptr<const PackedModel>& model() const { return model_; }
  const Cpu& cpu() const { return compute_->cpu(); }
  DType row_type() const { return row_type_; }
  std::string listen() const;
  std::string admin_address() const { return admin_->address(); }
  RouterSessionOptions router() const { return {.router_address = options_.router}; }
  // Why the process ends, for its exit code; stops the loop.
  void Fail(absl::Status why);

  // Runs the loop until a signal has been answered by `drain` (given the drain's deadline) or until
  // Fail. `ready` is asked now and then and decides what /ready says.
  absl::Status Run(std::function<Task<absl::Status>(Time deadline)> drain,
                   std::function<bool()> ready);

 private:
  explicit WorkerProcess(WorkerOptions options) : options_(std::move(options)) {}
  absl::Status Open(Role role);
  Task<void> DrainThenStop();
  Task<void> WatchReady();

  WorkerOptions options_;
  FaultPoints faults_;
  prometheus::Registry registry_;
  metrics::ProcessCollector process_metrics_;
  Health health_;
  DType row_type_ = DType::kBF16;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<ProcessSignals> signals_;
  std::unique_ptr<AdminHttp> admin_;
  std::unique_ptr<GrpcNetwork> network_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Compute> compute_;
  std::shared_ptr<const PackedModel> model_;
  std::optional<metrics::Common> common_;
  std::optional<ServiceContext> context_;
  std::function<Task<absl::Status>(Time)> drain_;
  std::function<bool()> ready_;
  absl::Status end_;
  bool draining_ = false;
};

}  // namespace bottega
