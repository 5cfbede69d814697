#include "core/service/worker_process.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/model/packer.h"
#include "core/transport/ucx_transport.h"

namespace bottega {
namespace {

constexpr NodeId kSelf{1};
constexpr Duration kReadyInterval = std::chrono::milliseconds(50);

const char* RoleName(Role role) { return role == Role::kAttention ? "attention" : "expert"; }

}  // namespace

void AddWorkerOptions(OptionTable& table, WorkerOptions* o) {
  table.Positional("DIR", 0, 1)
      .Add("model", &o->model, "model directory: Hugging Face form, or packed (or give DIR)")
      .Add("model-cache", &o->model_cache, "where models are packed to (default: the XDG cache)")
      .Add("weights", &o->weights,
           "format of the weights: f32, bf16; empty: the packed one's, else bf16")
      .Add("row-type", &o->row_type, "type of exchanged rows and of the KV cache")
      .OneOf({"f32", "bf16"})
      .Add("isa", &o->isa, "instruction set: scalar, avx2, avx512; empty: the best here")
      .Add("threads", &o->threads, "compute threads; 0: one per core")
      .Range(0, 1024)
      .Add("router", &o->router, "host:port of the router")
      .Add("name", &o->name, "name in the cluster (default: role and process id)")
      .Add("host", &o->host, "address to listen on")
      .Add("port", &o->port, "gRPC port; 0 picks one")
      .Range(0, 65535)
      .Add("admin-port", &o->admin_port, "port of /live /ready /metrics; 0 picks one")
      .Range(0, 65535)
      .Add("exchange", &o->exchange, "UCX transports of the data plane (UCX_TLS)")
      .Add("exchange-devices", &o->exchange_devices, "its network devices (UCX_NET_DEVICES)")
      .Add("faults", &o->faults, "fault points to arm (tests)")
      .Add("die-with-parent", &o->die_with_parent, "end when the parent process ends")
      .Add("drain-timeout", &o->drain_timeout, "how long a drain may take");
}

absl::StatusOr<std::unique_ptr<Compute>> Compute::Make(const std::string& isa, int64_t threads) {
  Isa chosen = BestIsa();
  if (!isa.empty()) {
    ASSIGN_OR_RETURN(chosen, ParseIsa(isa));
  }
  const int count = threads > 0
                        ? static_cast<int>(threads)
                        : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  return std::unique_ptr<Compute>(new Compute(chosen, count));
}

absl::StatusOr<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(Role role,
                                                                    const WorkerOptions& options) {
  std::unique_ptr<WorkerProcess> process(new WorkerProcess(options));
  RETURN_IF_ERROR(process->Open(role));
  return process;
}

absl::Status WorkerProcess::Open(Role role) {
  if (options_.model.empty()) {
    return MakeError(Reason::kInvalidValue, "no model: give its directory as DIR or --model");
  }
  if (options_.die_with_parent && !DieWithParent()) {
    return absl::CancelledError("the parent process is gone");
  }
  ASSIGN_OR_RETURN(row_type_, ParseDType(options_.row_type));
  RETURN_IF_ERROR(faults_.Arm(options_.faults));
  loop_ = Loop::Real();
  signals_ = std::make_unique<ProcessSignals>(*loop_, [this](int) {
    draining_ = true;
    health_.SetNotReady("draining");
    if (drain_ == nullptr) return Fail(absl::OkStatus());
    loop_->Spawn(kSelf, DrainThenStop());
  });
  if (options_.name.empty()) options_.name = fmt::format("{}-{}", RoleName(role), getpid());

  health_.SetNotReady("loading");
  ASSIGN_OR_RETURN(admin_, AdminHttp::Start({.host = options_.host,
                                             .port = static_cast<int>(options_.admin_port),
                                             .version_json = R"({"version":"0.1.0"})"},
                                            health_, {&registry_, &process_metrics_}));
  network_ = std::make_unique<GrpcNetwork>(*loop_);
  ASSIGN_OR_RETURN(transport_, OpenUcxTransport(*loop_, {.tls = options_.exchange,
                                                         .devices = options_.exchange_devices}));
  ASSIGN_OR_RETURN(compute_, Compute::Make(options_.isa, options_.threads));

  CacheOptions cache{.cache = options_.model_cache};
  if (!options_.weights.empty()) {
    ASSIGN_OR_RETURN(cache.weights, ParseDType(options_.weights));
  }
  ASSIGN_OR_RETURN(std::filesystem::path packed, PackedFor(options_.model, cache));
  ASSIGN_OR_RETURN(model_, PackedModel::Open(packed));
  context_.emplace(ServiceContext{.loop = *loop_,
                                  .node = kSelf,
                                  .network = *network_,
                                  .metrics = registry_,
                                  .faults = faults_,
                                  .role = role,
                                  .incarnation = NewIncarnation(),
                                  .name = options_.name,
                                  .log = Logger(RoleName(role), options_.name)});
  common_.emplace(registry_,
                  metrics::BuildInfo{.version = "0.1.0",
                                     .role = RoleName(role),
                                     .numerics_id = fmt::format("{}-{}", model_->numerics_base(),
                                                                options_.row_type)});
  common_->CountLines(context_->log);
  return absl::OkStatus();
}

std::string WorkerProcess::listen() const {
  return fmt::format("{}:{}", options_.host, options_.port);
}

void WorkerProcess::Fail(absl::Status why) {
  if (end_.ok()) end_ = std::move(why);
  loop_->Stop();
}

absl::Status WorkerProcess::Run(std::function<Task<absl::Status>(Time)> drain,
                                std::function<bool()> ready) {
  drain_ = std::move(drain);
  ready_ = std::move(ready);
  loop_->Spawn(kSelf, WatchReady());
  loop_->Run();
  loop_->Kill(kSelf);
  return end_;
}

Task<void> WorkerProcess::DrainThenStop() {
  const Time deadline = loop_->Now() + options_.drain_timeout;
  absl::Status drained = co_await drain_(deadline);
  if (!drained.ok()) context_->log.Warning("drain: " + drained.ToString());
  Fail(absl::OkStatus());
}

Task<void> WorkerProcess::WatchReady() {
  while (!draining_) {
    const bool now = ready_();
    if (now) {
      health_.SetReady();
    } else {
      health_.SetNotReady("loading");
    }
    common_->ready.Set(now ? 1 : 0);
    co_await loop_->Sleep(kReadyInterval);
  }
  common_->ready.Set(0);
}

}  // namespace bottega
