#include "core/service/service_process.h"

#include <absl/synchronization/mutex.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/base/status.h"

namespace bottega {
namespace {

constexpr NodeId kSelf{1};
// Asked often until the process is ready, which somebody waits for; then idle costs little.
constexpr Duration kStatusInterval = std::chrono::milliseconds(25);
constexpr Duration kReadyStatusInterval = std::chrono::milliseconds(500);
constexpr Duration kReportInterval = std::chrono::seconds(10);
constexpr char kVersion[] = "0.1.0";
constexpr char kRevision[] = BOTTEGA_REVISION;

std::string RoleName(Role role) {
  switch (role) {
    case Role::kGateway:
      return "gateway";
    case Role::kRouter:
      return "router";
    case Role::kAttention:
      return "attention";
    case Role::kExpert:
      return "expert";
  }
  return "";
}

}  // namespace

void AddProcessOptions(OptionTable& table, ProcessOptions* o, const std::string& port_help) {
  table.Add("name", &o->name, "name in the cluster (default: role and process id)")
      .Add("host", &o->host, "address to listen on")
      .Add("port", &o->port, port_help + "; 0 picks one")
      .Range(0, 65535)
      .Add("admin-port", &o->admin_port, "port of /live /ready /metrics; 0 picks one")
      .Range(0, 65535)
      .Add("faults", &o->faults, "fault points to arm (tests)")
      .Add("flight-dir", &o->flight_dir,
           "where a fatal error leaves the last events, as NAME-PID.flight (default: stderr)")
      .Add("log-format", &o->log_format, "form of log lines; auto: text on a terminal, else json")
      .OneOf({"auto", "text", "json"})
      .Add("die-with-parent", &o->die_with_parent, "end when the parent process ends")
      .Add("drain-timeout", &o->drain_timeout, "how long a drain may take")
      .Add("interrupt-timeout", &o->interrupt_timeout, "how long it may after Ctrl-C (SIGINT)");
}

std::optional<int> ParseOrExit(OptionTable& table, int argc, const char* const* argv,
                               std::vector<std::string>* positional) {
  absl::StatusOr<OptionTable::Outcome> outcome = table.Parse(argc, argv);
  if (!outcome.ok()) {
    // Whatever is wrong with options is wrong usage.
    std::fprintf(stderr, "%s\n", std::string(outcome.status().message()).c_str());
    return 2;
  }
  if (!outcome->print_and_exit.empty()) {
    std::fputs(outcome->print_and_exit.c_str(), stdout);
    return 0;
  }
  if (positional != nullptr) *positional = std::move(outcome->positional);
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<ServiceProcess>> ServiceProcess::Start(Role role,
                                                                      ProcessOptions options) {
  std::unique_ptr<ServiceProcess> process(new ServiceProcess(std::move(options)));
  RETURN_IF_ERROR(process->Open(role));
  return process;
}

absl::Status ServiceProcess::Open(Role role) {
  LeaveNoCoreFile();
  // Debian builds Abseil with its search for deadlocks on; each lock that gRPC takes would pay.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  if (options_.die_with_parent && !DieWithParent()) {
    return absl::CancelledError("the parent process is gone");
  }
  if (options_.name.empty()) options_.name = fmt::format("{}-{}", RoleName(role), getpid());
  if (options_.log_format != "auto") {
    using Form = LogSinkOptions::Form;
    OpenLogSink({.form = options_.log_format == "json" ? Form::kJson : Form::kText});
  }
  fatal_dump_.emplace(flight_, options_.name, options_.flight_dir);
  RETURN_IF_ERROR(faults_.Arm(options_.faults));
  loop_ = Loop::Real();
  started_ = loop_->Now();
  scrape_.emplace(*loop_);
  signals_ = std::make_unique<ProcessSignals>(*loop_, [this](int signal) {
    draining_ = true;
    flight_.Record({.kind = FlightKind::kDraining});
    health_.SetNotReady("draining");
    if (drain_ == nullptr) return Fail(absl::OkStatus());
    loop_->Spawn(kSelf, DrainThenStop(signal == SIGINT ? std::min(options_.interrupt_timeout,
                                                                  options_.drain_timeout)
                                                       : options_.drain_timeout));
  });
  health_.SetNotReady("loading");
  const AdminHttpOptions admin{.host = options_.host,
                               .port = static_cast<int>(options_.admin_port),
                               .version_json = fmt::format(R"({{"version":"{}"}})", kVersion),
                               .faults = &faults_,
                               .flight = [this](std::string_view query) {
                                 return flight_.Json(options_.name, ParseFlightQuery(query));
                               }};
  ASSIGN_OR_RETURN(
      admin_,
      AdminHttp::Start(admin, health_, {&*scrape_, &registry_, &process_metrics_, &load_metrics_}));
  network_ = std::make_unique<GrpcNetwork>(*loop_);
  context_.emplace(ServiceContext{.loop = *loop_,
                                  .node = kSelf,
                                  .network = *network_,
                                  .metrics = registry_,
                                  .faults = faults_,
                                  .role = role,
                                  .incarnation = NewIncarnation(),
                                  .name = options_.name,
                                  .log = Logger(RoleName(role), options_.name),
                                  .scrape = &*scrape_,
                                  .flight = &flight_,
                                  .load = &health_.load()});
  return absl::OkStatus();
}

std::string ServiceProcess::listen() const {
  return fmt::format("{}:{}", options_.host, options_.port);
}

void ServiceProcess::SetNumericsId(const std::string& numerics_id) {
  common_.emplace(registry_, metrics::BuildInfo{.version = kVersion,
                                                .revision = kRevision,
                                                .role = RoleName(context_->role),
                                                .numerics_id = numerics_id});
  common_->CountLines(context_->log);
}

void ServiceProcess::Fail(absl::Status why) {
  if (end_.ok()) end_ = std::move(why);
  loop_->Stop();
}

absl::Status ServiceProcess::Run(std::function<Task<absl::Status>(Time)> drain,
                                 std::function<std::string()> status) {
  drain_ = std::move(drain);
  status_ = std::move(status);
  if (!common_) SetNumericsId("");
  loop_->Spawn(kSelf, WatchStatus());
  if (report_ != nullptr) loop_->Spawn(kSelf, Report());
  loop_->Run();
  loop_->Kill(kSelf);  // before the server that its tasks use goes
  if (!end_.ok() && !options_.flight_dir.empty()) fatal_dump_->Now();
  return end_;
}

Task<void> ServiceProcess::DrainThenStop(Duration timeout) {
  const Time deadline = loop_->Now() + timeout;
  absl::Status drained = co_await drain_(deadline);
  if (!drained.ok()) context_->log.Warning("drain: " + drained.ToString());
  Fail(absl::OkStatus());
}

Task<void> ServiceProcess::Report() {
  while (true) {
    co_await loop_->Sleep(kReportInterval);
    if (const std::string line = report_(kReportInterval); !line.empty()) context_->log.Info(line);
  }
}

Task<void> ServiceProcess::WatchStatus() {
  bool was_ready = false;
  while (!draining_) {
    const std::string now = status_();
    if (now == "ready" && !std::exchange(was_ready, true)) {
      flight_.Record({.kind = FlightKind::kReady});
      common_->model_load_seconds.Set(Seconds(loop_->Now() - started_));
    }
    if (now == "ready") {
      health_.SetReady();
    } else {
      health_.SetNotReady(now);
    }
    common_->ready.Set(now == "ready" ? 1 : 0);
    const Duration interval = now == "ready" ? kReadyStatusInterval : kStatusInterval;
    co_await loop_->Sleep(interval);
  }
  common_->ready.Set(0);
}

}  // namespace bottega
