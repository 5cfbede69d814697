#include "gateway/gateway_service.h"

#include <algorithm>
#include <random>

#include "core/base/load_progress.h"
#include "core/base/reason.h"
#include "gateway/stream.h"

namespace bottega::gateway {
namespace {

// Bodies waiting for the text pool: what is queued, and as many of the routes that only tokenize.
constexpr size_t kPoolQueueMax = 2 * limits::kQueuedRequestsMax;
constexpr Duration kStatusPeriod = std::chrono::milliseconds(100);

}  // namespace

absl::Status ShuttingDown() {
  return MakeError(Reason::kDraining, "this gateway is shutting down");
}

GatewayService::GatewayService(const ServiceContext& context, GatewayConfig config, ModelText model)
    : context_(context),
      config_(std::move(config)),
      model_(std::move(model)),
      metrics_(context.metrics, model_.name, static_cast<double>(model_.max_model_len)),
      gate_(context.loop),
      workers_(context, config_.worker_silence_max, [this] { WorkersChanged(); }),
      admission_(context, config_, workers_),
      cluster_(context),
      context_tokens_(model_.max_model_len),
      pool_(config_.text_threads, kPoolQueueMax) {}

GatewayService::~GatewayService() = default;

void GatewayService::Start() {
  context_.loop.Spawn(context_.node, admission_.Run());
  context_.loop.Spawn(context_.node, WatchStatus(this));
}

void GatewayService::UpdateTable(TableSnapshot table) {
  table_ = std::move(table);
  cluster_.UpdateTable(table_);
  workers_.UpdateTable(table_);
}

void GatewayService::Generate(Api api, HttpRequest request, std::shared_ptr<Reply> reply) {
  context_.loop.Spawn(context_.node, ServeStream(*this, api, std::move(request), std::move(reply)));
}

Task<absl::Status> GatewayService::Drain(Time deadline) {
  absl::Status drained = co_await gate_.Close(deadline);
  if (drained.ok()) co_return drained;
  for (RequestEvents* events : live_events_) events->Close(ShuttingDown());
  const Time last = context_.loop.Now() + kLastWords;
  absl::Status told = co_await gate_.Close(last);
  co_return told;
}

void GatewayService::Close() { workers_.Close(); }

void GatewayService::WorkersChanged() {
  const int64_t workers = workers_.max_model_len();
  if (workers > 0) context_tokens_ = std::min(workers, model_.max_model_len);
  admission_.Wake();
}

// Never from a simulated loop's history twice, never guessable in a real one.
int64_t GatewayService::DrawSeed() {
  if (context_.loop.simulated()) return static_cast<int64_t>(context_.loop.SimRandom() >> 1);
  std::random_device device;
  return static_cast<int64_t>(((uint64_t{device()} << 32) | device()) >> 1);
}

const char* GatewayService::StatusNow() const {
  if (gate_.closed()) return "draining";
  const char* const status = StatusOfCluster();
  // Whom it misses, this process is loading.
  const bool here = context_.load != nullptr && context_.load->loaded() < context_.load->expected();
  return here && std::string_view(status) != "ready" ? "loading" : status;
}

const char* GatewayService::StatusOfCluster() const {
  if (table_ == nullptr) return "loading";
  // A worker that is away for a moment does not make the gateway unready.
  if (!workers_.any_connected()) {
    const bool lost_long_ago =
        context_.loop.Now() - workers_.alone_since() >= config_.no_worker_wait;
    const bool was_ready = std::string_view(status()) == "ready";
    return was_ready && !lost_long_ago ? "ready" : "no_worker";
  }
  if (!EveryExpertHasAReplica(*table_)) return "experts_unavailable";
  return "ready";
}

Task<void> GatewayService::WatchStatus(GatewayService* self) {
  while (true) {
    self->status_.store(self->StatusNow(), std::memory_order_relaxed);
    self->metrics_.queue_depth.Set(static_cast<double>(self->admission_.waiting()));
    self->metrics_.kv_usage_ratio.Set(self->workers_.kv_usage_ratio());
    co_await self->context_.loop.Sleep(kStatusPeriod);
  }
}

}  // namespace bottega::gateway
