#include "gateway/gateway_server.h"

#include "gateway/gateway_service.h"
#include "gateway/http/routes.h"

namespace bottega {

using gateway::GatewayService;

GatewayServer::GatewayServer(const ServiceContext& context, GatewayConfig config, ModelText model)
    : context_(context),
      service_(std::make_shared<GatewayService>(context, std::move(config), std::move(model))) {}

GatewayServer::~GatewayServer() { Stop(); }

absl::StatusOr<int> GatewayServer::Start() {
  gateway::RouteContext routes{
      .service = service_, .gateway = service_.get(), .loop = &context_.loop};
  auto http = gateway::HttpServer::Start(service_->config(), gateway::MakeHandlers(routes));
  if (!http.ok()) return http.status();
  http_ = *std::move(http);
  service_->Start();
  listening_ = !service_->config().share_port;
  if (!listening_) context_.loop.Spawn(context_.node, ListenWhenReady());
  return http_->port();
}

Task<void> GatewayServer::ListenWhenReady() {
  while (std::string_view(service_->status()) != "ready")
    co_await context_.loop.Sleep(std::chrono::milliseconds(10));
  http_->Listen();
  listening_ = true;
}

void GatewayServer::UpdateTable(TableSnapshot table) { service_->UpdateTable(std::move(table)); }

void GatewayServer::KnowRouters(const std::string& routers) {
  service_->cluster().KnowRouters(routers);
}

Task<absl::Status> GatewayServer::Drain(Time deadline) {
  http_->Drain();
  co_await WaitForConnections(deadline);
  absl::Status drained = co_await service_->Drain(deadline);
  const Time last = context_.loop.Now() + gateway::kLastWords;
  co_await WaitForConnections(last);
  co_return drained;
}

Task<void> GatewayServer::WaitForConnections(Time until) {
  while (http_->connections() > 0 && context_.loop.Now() < until) {
    co_await context_.loop.Sleep(std::chrono::milliseconds(10));
  }
}

// Front to back: no new connections, no more requests, then what carried them.
void GatewayServer::Stop() {
  if (service_ == nullptr) return;
  if (http_ != nullptr) http_->StopAccepting();
  service_->Close();
  context_.loop.Kill(context_.node);
  // The pool's work holds replies and runs out within the limits of one prompt; the HTTP thread may
  // still hand requests over, so it ends before what they use.
  service_->pool().Stop();
  if (http_ != nullptr) http_->Stop();
  service_.reset();
  http_.reset();
}

std::string GatewayServer::status() const {
  const std::string status = service_->status();
  return status == "ready" && !listening_ ? "loading" : status;
}

std::string GatewayServer::BusyLine(Duration span) { return service_->metrics().BusyLine(span); }

size_t GatewayServer::live_requests() const { return service_->gate().inside(); }

}  // namespace bottega
