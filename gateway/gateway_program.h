#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/service/options.h"
#include "core/service/router_session.h"
#include "gateway/config.h"
#include "gateway/gateway_server.h"

namespace bottega {

// The gateway's options beside its process' own; `bottega serve` takes them too.
struct GatewayOptions {
  std::string served_model_name;
  std::vector<std::string> api_keys;
  std::string reasoning_field = "both";
  std::string default_chat_template_kwargs;  // a JSON object
  int64_t max_num_queued_reqs = limits::kQueuedRequestsMax;
  int64_t overload_status = 429;
  bool no_web = false;
};
void AddGatewayOptions(OptionTable& table, GatewayOptions* options);

// InvalidArgument says which option is wrong.
absl::StatusOr<GatewayConfig> MakeGatewayConfig(const GatewayOptions& options,
                                                const std::string& host, int64_t port);

// Registers the gateway at the router; `server` follows its table.
std::unique_ptr<RouterSession> JoinRouter(ServiceContext& context, GatewayServer& server,
                                          const std::string& admin_address,
                                          const RouterSessionOptions& router,
                                          std::function<void(absl::Status)> on_refused);

// The program `bottega-gateway`: options, process, server, until a signal. Returns the exit code.
int RunGatewayProgram(int argc, const char* const* argv);

}  // namespace bottega
