#include "router/router_server.h"

#include "core/base/status.h"
#include "router/background/liveness_checker.h"
#include "router/background/rebalancer.h"
#include "router/router_service.h"
#include "router/state.h"
#include "router/table_writer.h"

namespace bottega {

RouterServer::RouterServer(ServiceContext& context, RouterConfig config)
    : context_(context),
      state_(std::make_shared<router::RouterState>(context, std::move(config))) {}

RouterServer::~RouterServer() { state_->stopping = true; }

absl::Status RouterServer::Start() {
  ASSIGN_OR_RETURN(address_, context_.network.Serve(context_.node, state_->config.listen,
                                                    router::Methods(state_)));
  context_.loop.Spawn(context_.node, router::RunTableWriter(state_));
  context_.loop.Spawn(context_.node, router::RunLivenessChecker(state_));
  context_.loop.Spawn(context_.node, router::RunRebalancer(state_));
  return absl::OkStatus();
}

void RouterServer::Stop() {
  state_->stopping = true;
  state_->Touch();
  state_->judge.Wake();
  context_.network.Shutdown(context_.node);
}

TableSnapshot RouterServer::table() const { return state_->table; }

bool RouterServer::ready() const {
  if (state_->table != nullptr && EveryExpertHasAReplica(*state_->table)) return true;
  return context_.loop.Now() - state_->started >= state_->config.return_window;
}

}  // namespace bottega
