#include "router/router_program.h"

#include <fmt/format.h>

#include "core/service/service_process.h"
#include "router/router_server.h"

namespace bottega {
namespace {

Task<absl::Status> LeaveNobodyBehind(RouterServer* server, Time /*deadline*/) {
  server->Stop();  // members go on with their last table
  co_return absl::OkStatus();
}

}  // namespace

int RunRouter(int argc, const char* const* argv) {
  ProcessOptions options;
  options.port = 50061;
  options.admin_port = 9090;
  options.drain_timeout = std::chrono::seconds(5);
  int64_t replication = 1;
  RouterConfig config;
  OptionTable table("bottega-router",
                    "The map of a cluster: who is alive, who holds which experts.");
  AddProcessOptions(table, &options, "port that members register at");
  table.Add("replication", &replication, "workers that hold each expert")
      .Range(1, 64)
      .Add("suspect-after", &config.liveness.suspect_after, "silence before a member is suspected")
      .Add("dead-after", &config.liveness.dead_after, "silence before a member is given up")
      .Add("settle", &config.settle, "wait for more expert workers before placing on new ones")
      .Add("rebalance-interval", &config.rebalance_interval,
           "how often measured load is looked at");
  if (std::optional<int> code = ParseOrExit(table, argc, argv, nullptr)) return *code;
  config.replication = static_cast<uint32_t>(replication);

  auto process = ServiceProcess::Start(Role::kRouter, options);
  if (!process.ok()) return ExitCode(process.status());
  config.listen = (*process)->listen();
  RouterServer server((*process)->context(), config);
  if (absl::Status started = server.Start(); !started.ok()) return ExitCode(started);
  (*process)->context().log.Info(
      fmt::format("router at {}, admin at {}", server.address(), (*process)->admin_address()));
  return ExitCode(
      (*process)->Run([&](Time deadline) { return LeaveNobodyBehind(&server, deadline); },
                      [&] { return std::string(server.ready() ? "ready" : "loading"); }));
}

}  // namespace bottega
