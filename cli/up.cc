#include "cli/up.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/cluster_plan.h"
#include "cli/local_ports.h"
#include "cli/prometheus_targets.h"
#include "cli/rolling_restart.h"
#include "cli/supervisor.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/service/load_bar.h"
#include "core/service/process.h"

namespace bottega {
namespace {

constexpr NodeId kSelf{1};
constexpr Duration kReadyInterval = std::chrono::milliseconds(30);

OptionTable Table(UpOptions* o) {
  OptionTable table("bottega up",
                    "Runs a cluster of processes on this machine. SIGUSR2 restarts them one by "
                    "one under load.");
  table.Positional("DIR", 0, 1);
  AddModelOptions(table, &o->model);
  AddComputeOptions(table, &o->compute,
                    "compute threads of each worker; 0: those of a kind share the cores");
  AddGatewayOptions(table, &o->gateway);
  table.Add("host", &o->host, "address of the gateways")
      .Add("port", &o->port, "HTTP port of the gateways; 0 picks one")
      .Range(0, 65535)
      .Add("gateways", &o->gateways, "gateways; all listen at the one HTTP port")
      .Range(1, 64)
      .Add("routers", &o->routers, "routers; one writes, the others stand by")
      .Range(1, 8)
      .Add("lease", &o->lease, "their lease, as of bottega-router (default: a file)")
      .Add("attention-workers", &o->attention_workers, "attention workers")
      .Range(1, 64)
      .Add("expert-workers", &o->expert_workers, "expert workers")
      .Range(1, 64)
      .Add("attention-threads", &o->attention_threads,
           "compute threads of each attention worker; 0: as --threads")
      .Range(0, 1024)
      .Add("replication", &o->replication, "workers that hold each expert")
      .Range(1, 64)
      .Add("kv-cache", &o->kv_cache, "size of each attention worker's KV pool")
      .Add("exchange", &o->exchange,
           "data plane: auto (shared memory), shm, tcp, or a UCX_TLS list")
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

// A file name for the routers' lease; the file goes with this object.
class LeaseFile {
 public:
  LeaseFile()
      : path_(
            (std::filesystem::temp_directory_path() / fmt::format("bottega-up-{}.lease", getpid()))
                .string()) {
    Remove();
  }
  ~LeaseFile() { Remove(); }
  const std::string& path() const { return path_; }

 private:
  void Remove() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string path_;
};

// SIGUSR2, any number of times, on the loop's thread. Made before any other thread starts.
class RollSignal {
 public:
  RollSignal(Loop& loop, std::function<void()> roll) : loop_(loop) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    loop_.WatchFd(fd_, [this, roll = std::move(roll)] {
      signalfd_siginfo info;
      if (read(fd_, &info, sizeof info) == sizeof info) roll();
    });
  }
  ~RollSignal() {
    loop_.UnwatchFd(fd_);
    close(fd_);
  }

 private:
  Loop& loop_;
  int fd_;
};

class LocalCluster {
 public:
  LocalCluster(Loop& loop, const UpOptions& options, const PackedModel& model,
               std::string model_name)
      : loop_(loop),
        o_(options),
        packed_(model.dir().string()),
        attention_bytes_(model.AttentionBytes()),
        expert_bytes_(model.AllExpertBytes()),
        model_name_(std::move(model_name)) {}

  absl::Status Start();
  void Interrupt();
  // Every process anew, one by one; nothing while one such round runs.
  void Roll();
  int exit_code() const { return exit_code_; }

 private:
  Supervisor::Events SupervisorEvents();
  absl::Status WriteTargets() const;
  bool AllReady() const;
  Task<void> AnnounceReady();
  Task<void> ShowLoading();
  Task<void> RollAll();
  Task<void> StopAll();

  Loop& loop_;
  const UpOptions& o_;
  const std::string packed_;
  const uint64_t attention_bytes_;  // that each attention worker loads
  const uint64_t expert_bytes_;     // of all experts, once
  const std::string model_name_;
  LeaseFile lease_;
  std::FILE* log_ = stderr;
  int http_port_ = 0;
  std::unique_ptr<Supervisor> supervisor_;
  bool ready_ = false;  // once: a cluster that has never served ends where one of it refuses
  bool rolling_ = false;
  bool stopping_ = false;
  int exit_code_ = 0;
};

absl::Status LocalCluster::Start() {
  if (!o_.log_file.empty()) {
    log_ = std::fopen(o_.log_file.c_str(), "w");
    if (log_ == nullptr) {
      return MakeError(Reason::kInvalidValue,
                       fmt::format("--log-file: cannot write {}", o_.log_file));
    }
    setvbuf(log_, nullptr, _IOLBF, 0);
  }
  LocalPorts ports;
  ASSIGN_OR_RETURN(ClusterPlan plan, PlanCluster(o_, packed_, model_name_, lease_.path(), ports));
  ports.Release();
  http_port_ = plan.http_port;
  std::printf("router    %s\n", plan.routers.c_str());
  supervisor_ =
      std::make_unique<Supervisor>(loop_, kSelf, std::move(plan.processes), SupervisorEvents());
  RETURN_IF_ERROR(WriteTargets());
  supervisor_->Start();
  loop_.Spawn(kSelf, AnnounceReady());
  loop_.Spawn(kSelf, ShowLoading());
  return absl::OkStatus();
}

Supervisor::Events LocalCluster::SupervisorEvents() {
  Supervisor::Events events;
  events.on_start = [this](const ProcessPlan& plan, pid_t pid) {
    std::printf("started   %-12s pid %d admin %s\n", plan.name.c_str(), pid,
                plan.admin_address.c_str());
    std::fflush(stdout);
    // A rolling restart moves processes to other admin ports.
    if (absl::Status written = WriteTargets(); !written.ok()) {
      std::fprintf(stderr, "bottega up: %s\n", std::string(written.message()).c_str());
    }
  };
  events.on_line = [this](const ProcessPlan& plan, std::string_view line) {
    // Not fmt::print, which throws where there is no room: the cluster goes on without the line.
    std::fputs(fmt::format("[{}] {}\n", plan.name, line).c_str(), log_);
  };
  const auto ended = [](const char* word) {
    return [word](const ProcessPlan& plan, const std::string& how) {
      std::printf("%-9s %-12s %s\n", word, plan.name.c_str(), how.c_str());
      std::fflush(stdout);
    };
  };
  events.on_death = ended("died");
  events.on_end = ended("ended");
  events.on_refusal = [this](const ProcessPlan& plan, int code) {
    std::fprintf(
        stderr, "bottega up: %s does not run (exit code %d); its last lines %s say why%s\n",
        plan.name.c_str(), code, o_.log_file.empty() ? "above" : ("in " + o_.log_file).c_str(),
        ready_ ? "; the others go on, and it is tried again" : "");
    if (ready_) return;
    exit_code_ = code > 0 ? code : 1;
    Interrupt();
  };
  return events;
}

absl::Status LocalCluster::WriteTargets() const {
  if (o_.prometheus_targets.empty()) return absl::OkStatus();
  std::vector<ProcessPlan> plans;
  for (const auto& [id, plan] : supervisor_->processes()) plans.push_back(plan);
  return WritePrometheusTargets(o_.prometheus_targets, plans);
}

// A client may connect, and every gateway hears.
bool LocalCluster::AllReady() const {
  for (const auto& [id, plan] : supervisor_->processes()) {
    if (plan.role == Role::kGateway && !AskReady(plan.admin_address).ready) return false;
  }
  return AskReady(o_.host, http_port_).ready;
}

// A process does not tell its bytes but its share of them; which those are is known here.
Task<void> LocalCluster::ShowLoading() {
  LoadBar bar;
  const auto experts_each = static_cast<double>(expert_bytes_) *
                            static_cast<double>(o_.replication) /
                            static_cast<double>(o_.expert_workers);
  while (!stopping_ && !ready_) {
    double loaded = 0, expected = 0;
    for (const auto& [id, plan] : supervisor_->processes()) {
      if (plan.role != Role::kAttention && plan.role != Role::kExpert) continue;
      const double bytes =
          plan.role == Role::kAttention ? static_cast<double>(attention_bytes_) : experts_each;
      loaded += bytes * AskReady(plan.admin_address).progress;
      expected += bytes;
    }
    bar.Update(static_cast<uint64_t>(loaded), static_cast<uint64_t>(expected));
    if (loaded >= expected) co_return;
    co_await loop_.Sleep(LoadBar::kLook);
  }
}

Task<void> LocalCluster::AnnounceReady() {
  while (!stopping_ && !AllReady()) co_await loop_.Sleep(kReadyInterval);
  if (stopping_) co_return;
  ready_ = true;
  std::printf("ready     http://%s:%d   (model %s)\n", o_.host.c_str(), http_port_,
              model_name_.c_str());
  std::fflush(stdout);
}

void LocalCluster::Roll() {
  if (stopping_ || std::exchange(rolling_, true)) return;
  loop_.Spawn(kSelf, RollAll());
}

Task<void> LocalCluster::RollAll() {
  std::printf("rolling   every process, one by one\n");
  std::fflush(stdout);
  absl::Status rolled = co_await RollCluster(&loop_, supervisor_.get(), &stopping_);
  rolling_ = false;
  if (rolled.ok()) {
    std::printf("rolled    every process was restarted\n");
  } else {
    std::printf("rolled    not to the end: %s\n", std::string(rolled.message()).c_str());
  }
  std::fflush(stdout);
}

void LocalCluster::Interrupt() {
  if (stopping_) return;
  stopping_ = true;
  loop_.Spawn(kSelf, StopAll());
}

Task<void> LocalCluster::StopAll() {
  co_await supervisor_->Stop("gateway", o_.drain_timeout + std::chrono::seconds(3));
  loop_.Stop();
}

absl::Status Run(const UpOptions& options, int* exit_code) {
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
  LocalCluster cluster(*loop, options, *model, name);
  ProcessSignals signals(*loop, [&cluster](int) { cluster.Interrupt(); });
  // Not SIGHUP: that comes too when the terminal of a foreground program is closed.
  RollSignal roll(*loop, [&cluster] { cluster.Roll(); });
  RETURN_IF_ERROR(cluster.Start());
  loop->Run();
  loop->Kill(kSelf);
  *exit_code = cluster.exit_code();
  return absl::OkStatus();
}

}  // namespace

int RunUp(int argc, const char* const* argv) {
  UpOptions options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.model.dir = positional.front();
  if (options.log_file.empty() && isatty(STDERR_FILENO) != 0) options.log_format = "text";
  int exit_code = 0;
  const absl::Status status = Run(options, &exit_code);
  return status.ok() ? exit_code : ExitCode(status);
}

}  // namespace bottega
