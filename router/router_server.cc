#include "router/router_server.h"

#include "core/base/status.h"
#include "router/leadership.h"
#include "router/router_service.h"

namespace bottega {

using router::Leadership;

RouterServer::RouterServer(ServiceContext& context, RouterConfig config,
                           std::unique_ptr<Lease> lease)
    : context_(context),
      leadership_(std::make_shared<Leadership>(context, std::move(config), std::move(lease))) {}

RouterServer::~RouterServer() {
  leadership_->stopping = true;
  if (leadership_->state != nullptr) leadership_->state->stopping = true;
}

absl::Status RouterServer::Start() {
  ASSIGN_OR_RETURN(address_, context_.network.Serve(context_.node, leadership_->config.listen,
                                                    router::Methods(leadership_)));
  context_.loop.Spawn(context_.node, router::RunLeadership(leadership_));
  return absl::OkStatus();
}

Task<absl::Status> RouterServer::Drain(Time deadline) {
  std::shared_ptr<Leadership> leadership = leadership_;
  Loop& loop = context_.loop;
  leadership->stopping = true;
  if (leadership->state != nullptr) router::EndTerm(*leadership->state, "it drains");
  leadership->wake.Wake();
  while (!leadership->released && loop.Now() < deadline) {
    co_await loop.Sleep(std::chrono::milliseconds(5));
  }
  co_return leadership->released ? absl::OkStatus()
                                 : absl::DeadlineExceededError("the lease is not given up");
}

void RouterServer::Stop() {
  leadership_->stopping = true;
  if (leadership_->state != nullptr) router::EndTerm(*leadership_->state, "it ends");
  leadership_->wake.Wake();
  context_.network.Shutdown(context_.node);
}

bool RouterServer::writes() const { return leadership_->state != nullptr; }

TableSnapshot RouterServer::table() const {
  return leadership_->state == nullptr ? nullptr : leadership_->state->table;
}

bool RouterServer::ready() const {
  const router::RouterState* state = leadership_->state.get();
  if (state == nullptr) return leadership_->lease_answers;
  if (state->table != nullptr && EveryExpertHasAReplica(*state->table)) return true;
  return context_.loop.Now() - state->started >= state->config.return_window;
}

}  // namespace bottega
