#include "cli/up.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/prometheus_targets.h"
#include "cli/supervisor.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/process.h"
#include "core/service/worker_process.h"
#include "gateway/gateway_program.h"

namespace bottega {
namespace {

constexpr NodeId kSelf{1};
constexpr Duration kReadyInterval = std::chrono::milliseconds(30);

struct Options {
  ModelOptions model;
  ComputeOptions compute;
  GatewayOptions gateway;
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  int64_t attention_workers = 1;
  int64_t expert_workers = 2;
  int64_t replication = 1;
  std::string kv_cache;
  std::string exchange = "tcp";
  std::string exchange_devices = "lo";
  std::string moe_metrics = "basic";
  std::string prometheus_targets;
  std::string flight_dir;
  std::string log_file;
  Duration drain_timeout = std::chrono::seconds(5);
};

OptionTable Table(Options* o) {
  OptionTable table("bottega up", "Runs a cluster of processes on this machine.");
  table.Positional("DIR", 0, 1);
  o->compute.threads = 1;  // a worker each for the cores, not each worker all of them
  AddModelOptions(table, &o->model);
  AddComputeOptions(table, &o->compute);
  AddGatewayOptions(table, &o->gateway);
  table.Add("host", &o->host, "address of the gateway")
      .Add("port", &o->port, "HTTP port of the gateway; 0 picks one")
      .Range(0, 65535)
      .Add("attention-workers", &o->attention_workers, "attention workers")
      .Range(1, 64)
      .Add("expert-workers", &o->expert_workers, "expert workers")
      .Range(1, 64)
      .Add("replication", &o->replication, "workers that hold each expert")
      .Range(1, 64)
      .Add("kv-cache", &o->kv_cache, "size of each attention worker's KV pool")
      .Add("exchange", &o->exchange, "UCX transports of the data plane (UCX_TLS)")
      .Add("exchange-devices", &o->exchange_devices, "its network devices (UCX_NET_DEVICES)")
      .Add("prometheus-targets", &o->prometheus_targets,
           "file to write with what Prometheus scrapes (observability/prometheus)")
      .Add("flight-dir", &o->flight_dir,
           "where a process that dies leaves its last events (default: with its log lines)")
      .Add("log-file", &o->log_file, "where the processes' lines go (default: stderr)")
      .Add("drain-timeout", &o->drain_timeout, "how long live requests may finish at Ctrl-C");
  AddMoeMetricsOption(table, &o->moe_metrics);
  return table;
}

// Ports nobody listens on at this moment, all different. Known beforehand, because a process that
// is restarted must come back where the others look for it.
class Ports {
 public:
  ~Ports() { Release(); }
  absl::StatusOr<int> Take() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    held_.push_back(fd);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      return MakeError(Reason::kInternalError, "no free port on 127.0.0.1");
    }
    return ntohs(address.sin_port);
  }
  void Release() {
    for (int fd : held_) close(fd);
    held_.clear();
  }

 private:
  std::vector<int> held_;
};

// A port asked for by number must be free now: better said here than by a child that keeps dying.
absl::Status CheckFree(const std::string& host, int64_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool valid = inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1;
  const bool free = !valid || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  if (free) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("cannot listen at {}:{}: the port is in use", host, port));
}

// GET /ready answers 200. Loopback and tiny: asked from the loop, with a short timeout.
bool IsReady(const std::string& host, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit{.tv_sec = 0, .tv_usec = 200'000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  if (address.sin_addr.s_addr == 0) address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  char answer[64] = {};
  const bool ok = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                  send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0 &&
                  recv(fd, answer, sizeof answer - 1, 0) > 0;
  close(fd);
  return ok && std::string_view(answer).substr(0, 12) == "HTTP/1.1 200";
}

std::string Program(const char* name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

class LocalCluster {
 public:
  LocalCluster(Loop& loop, const Options& options, std::string packed, std::string model_name)
      : loop_(loop), o_(options), packed_(std::move(packed)), model_name_(std::move(model_name)) {}

  absl::Status Start();
  void Interrupt();
  int exit_code() const { return exit_code_; }

 private:
  absl::StatusOr<std::vector<ProcessPlan>> Plan();
  std::vector<std::string> WorkerArguments(const char* program) const;
  Supervisor::Events SupervisorEvents();
  Task<void> AnnounceReady();
  Task<void> StopAll();

  Loop& loop_;
  const Options& o_;
  const std::string packed_;
  const std::string model_name_;
  Ports ports_;
  std::FILE* log_ = stderr;
  std::string router_address_;
  int http_port_ = 0;
  std::unique_ptr<Supervisor> supervisor_;
  bool stopping_ = false;
  int exit_code_ = 0;
};

std::vector<std::string> LocalCluster::WorkerArguments(const char* program) const {
  std::vector<std::string> arguments = {Program(program),     packed_,
                                        "--router",           router_address_,
                                        "--row-type",         o_.compute.row_type,
                                        "--threads",          std::to_string(o_.compute.threads),
                                        "--exchange",         o_.exchange,
                                        "--exchange-devices", o_.exchange_devices,
                                        "--moe-metrics",      o_.moe_metrics};
  if (!o_.compute.isa.empty()) arguments.insert(arguments.end(), {"--isa", o_.compute.isa});
  return arguments;
}

absl::StatusOr<std::vector<ProcessPlan>> LocalCluster::Plan() {
  ASSIGN_OR_RETURN(const int router_port, ports_.Take());
  router_address_ = fmt::format("127.0.0.1:{}", router_port);
  http_port_ = static_cast<int>(o_.port);
  if (http_port_ == 0) {
    ASSIGN_OR_RETURN(http_port_, ports_.Take());
  } else {
    RETURN_IF_ERROR(CheckFree(o_.host, o_.port));
  }
  std::vector<ProcessPlan> plans;
  plans.push_back({.name = "router",
                   .arguments = {Program("bottega-router"), "--port", std::to_string(router_port),
                                 "--replication", std::to_string(o_.replication)}});
  for (int64_t i = 0; i < o_.expert_workers; ++i) {
    plans.push_back(
        {.name = fmt::format("expert-{}", i), .arguments = WorkerArguments("bottega-expert")});
  }
  for (int64_t i = 0; i < o_.attention_workers; ++i) {
    plans.push_back({.name = fmt::format("attention-{}", i),
                     .arguments = WorkerArguments("bottega-attention")});
    if (!o_.kv_cache.empty()) {
      plans.back().arguments.insert(plans.back().arguments.end(), {"--kv-cache", o_.kv_cache});
    }
  }
  ProcessPlan gateway{
      .name = "gateway-0",
      .arguments = {Program("bottega-gateway"), packed_, "--router", router_address_, "--host",
                    o_.host, "--port", std::to_string(http_port_), "--served-model-name",
                    model_name_, "--reasoning-field", o_.gateway.reasoning_field,
                    "--max-num-queued-reqs", std::to_string(o_.gateway.max_num_queued_reqs),
                    "--overload-status", std::to_string(o_.gateway.overload_status),
                    "--drain-timeout",
                    fmt::format("{}ms", o_.drain_timeout / std::chrono::milliseconds(1))}};
  for (const std::string& key : o_.gateway.api_keys) {
    gateway.arguments.insert(gateway.arguments.end(), {"--api-key", key});
  }
  if (!o_.gateway.default_chat_template_kwargs.empty()) {
    gateway.arguments.insert(gateway.arguments.end(), {"--default-chat-template-kwargs",
                                                       o_.gateway.default_chat_template_kwargs});
  }
  plans.push_back(std::move(gateway));
  for (ProcessPlan& plan : plans) {
    ASSIGN_OR_RETURN(const int admin_port, ports_.Take());
    plan.admin_address = fmt::format("127.0.0.1:{}", admin_port);
    plan.arguments.insert(plan.arguments.end(),
                          {"--name", plan.name, "--admin-port", std::to_string(admin_port),
                           "--log-format", isatty(fileno(log_)) != 0 ? "text" : "json",
                           "--flight-dir", o_.flight_dir, "--die-with-parent"});
  }
  ports_.Release();
  return plans;
}

absl::Status LocalCluster::Start() {
  if (!o_.log_file.empty()) {
    log_ = std::fopen(o_.log_file.c_str(), "w");
    if (log_ == nullptr) {
      return MakeError(Reason::kInvalidValue,
                       fmt::format("--log-file: cannot write {}", o_.log_file));
    }
    setvbuf(log_, nullptr, _IOLBF, 0);
  }
  ASSIGN_OR_RETURN(std::vector<ProcessPlan> plans, Plan());
  if (!o_.prometheus_targets.empty()) {
    RETURN_IF_ERROR(WritePrometheusTargets(o_.prometheus_targets, plans));
  }
  std::printf("router    %s\n", router_address_.c_str());
  supervisor_ = std::make_unique<Supervisor>(loop_, kSelf, std::move(plans), SupervisorEvents());
  supervisor_->Start();
  loop_.Spawn(kSelf, AnnounceReady());
  return absl::OkStatus();
}

Supervisor::Events LocalCluster::SupervisorEvents() {
  Supervisor::Events events;
  events.on_start = [](const ProcessPlan& plan, pid_t pid) {
    std::printf("started   %-12s pid %d admin %s\n", plan.name.c_str(), pid,
                plan.admin_address.c_str());
    std::fflush(stdout);
  };
  events.on_line = [this](const ProcessPlan& plan, std::string_view line) {
    fmt::print(log_, "[{}] {}\n", plan.name, line);
  };
  events.on_death = [](const ProcessPlan& plan, const std::string& how) {
    std::printf("died      %-12s %s\n", plan.name.c_str(), how.c_str());
    std::fflush(stdout);
  };
  events.on_hopeless = [this](const ProcessPlan& plan, int code) {
    std::fprintf(stderr, "bottega up: %s does not run (exit code %d); its last lines %s say why\n",
                 plan.name.c_str(), code,
                 o_.log_file.empty() ? "above" : ("in " + o_.log_file).c_str());
    exit_code_ = code > 0 ? code : 1;
    Interrupt();
  };
  return events;
}

Task<void> LocalCluster::AnnounceReady() {
  while (!stopping_ && !IsReady(o_.host, http_port_)) co_await loop_.Sleep(kReadyInterval);
  if (stopping_) co_return;
  std::printf("ready     http://%s:%d   (model %s)\n", o_.host.c_str(), http_port_,
              model_name_.c_str());
  std::fflush(stdout);
}

void LocalCluster::Interrupt() {
  if (stopping_) return;
  stopping_ = true;
  loop_.Spawn(kSelf, StopAll());
}

Task<void> LocalCluster::StopAll() {
  co_await supervisor_->Stop("gateway", o_.drain_timeout + std::chrono::seconds(1));
  loop_.Stop();
}

absl::Status Run(const Options& options, int* exit_code) {
  if (options.replication > options.expert_workers) {
    return MakeError(Reason::kInvalidValue,
                     fmt::format("--replication {} needs as many expert workers; there are {}",
                                 options.replication, options.expert_workers));
  }
  // Before the loop's signals: Ctrl-C while a model is being packed simply ends the program.
  ASSIGN_OR_RETURN(const auto model, OpenModel(options.model));
  const std::string name =
      options.gateway.served_model_name.empty()
          ? std::filesystem::weakly_canonical(options.model.dir).filename().string()
          : options.gateway.served_model_name;
  const auto loop = Loop::Real();
  LocalCluster cluster(*loop, options, model->dir().string(), name);
  ProcessSignals signals(*loop, [&cluster](int) { cluster.Interrupt(); });
  RETURN_IF_ERROR(cluster.Start());
  loop->Run();
  loop->Kill(kSelf);
  *exit_code = cluster.exit_code();
  return absl::OkStatus();
}

}  // namespace

int RunUp(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.model.dir = positional.front();
  int exit_code = 0;
  const absl::Status status = Run(options, &exit_code);
  return status.ok() ? exit_code : ExitCode(status);
}

}  // namespace bottega
