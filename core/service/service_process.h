#pragma once

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "core/base/fault_point.h"
#include "core/base/loop.h"
#include "core/service/admin_http.h"
#include "core/service/context.h"
#include "core/service/fatal_dump.h"
#include "core/service/grpc_network.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/scrape_hooks.h"
#include "observability/flight_recorder.h"
#include "observability/metrics.h"

namespace bottega {

// What every program of the cluster is told alike.
struct ProcessOptions {
  std::string name;
  std::string host = "127.0.0.1";
  int64_t port = 0;
  int64_t admin_port = 0;
  std::string faults;
  bool die_with_parent = false;
  std::string flight_dir;
  std::string log_format = "auto";
  Duration drain_timeout = std::chrono::seconds(30);
  Duration interrupt_timeout = std::chrono::seconds(5);  // SIGINT: somebody waits at a terminal
};
// `port_help` says what listens there. The options' values at this moment are the defaults.
void AddProcessOptions(OptionTable& table, ProcessOptions* options, const std::string& port_help);

// Parses argv into `table`'s targets: an exit code when the program is to end now (--help, a wrong
// flag), nothing when it is to run.
std::optional<int> ParseOrExit(OptionTable& table, int argc, const char* const* argv,
                               std::vector<std::string>* positional);

// A program's process around its server: signals, loop, admin port, network. Made in that order,
// hard and early: the admin port answers "loading" before anything heavy is opened.
class ServiceProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceProcess>> Start(Role role, ProcessOptions options);

  ServiceContext& context() { return *context_; }
  Loop& loop() { return *loop_; }
  Health& health() { return health_; }
  std::string listen() const;  // host:port of the options
  std::string admin_address() const { return admin_->address(); }
  // For build_info, once it is known.
  void SetNumericsId(const std::string& numerics_id);
  // Why the process ends, for its exit code; stops the loop.
  void Fail(absl::Status why);

  // `line` tells what was done in `span`, "" if nothing: logged now and then while the process is
  // busy. Give it before Run.
  void ReportWith(std::function<std::string(Duration span)> line) { report_ = std::move(line); }

  // Runs the loop until a signal has been answered by `drain` (given the drain's deadline) or until
  // Fail. `status` is asked now and then and is what /ready says ("ready", "loading", ...).
  absl::Status Run(std::function<Task<absl::Status>(Time deadline)> drain,
                   std::function<std::string()> status);

 private:
  explicit ServiceProcess(ProcessOptions options) : options_(std::move(options)) {}
  absl::Status Open(Role role);
  Task<void> DrainThenStop(Duration timeout);
  Task<void> WatchStatus();
  Task<void> Report();

  ProcessOptions options_;
  FlightRecorder flight_;
  std::optional<FatalDump> fatal_dump_;
  FaultPoints faults_;
  prometheus::Registry registry_;
  metrics::ProcessCollector process_metrics_;
  Health health_;
  metrics::LoadCollector load_metrics_{[this] { return health_.Read().progress; }};
  std::unique_ptr<Loop> loop_;
  std::optional<ScrapeHooks> scrape_;
  std::unique_ptr<ProcessSignals> signals_;
  std::unique_ptr<AdminHttp> admin_;
  std::unique_ptr<GrpcNetwork> network_;
  std::optional<metrics::Common> common_;
  std::optional<ServiceContext> context_;
  std::function<Task<absl::Status>(Time)> drain_;
  std::function<std::string()> status_;
  std::function<std::string(Duration)> report_;
  absl::Status end_;
  bool draining_ = false;
  Time started_{};
};

}  // namespace bottega
