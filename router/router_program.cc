#include "router/router_program.h"

#include <fmt/format.h>

#include "core/service/service_process.h"
#include "router/router_server.h"

namespace bottega {
namespace {

// Members go on with their last table.
Task<absl::Status> StepDown(RouterServer* server, Time deadline) {
  absl::Status released = co_await server->Drain(deadline);
  server->Stop();
  co_return released;
}

}  // namespace

int RunRouter(int argc, const char* const* argv) {
  ProcessOptions options;
  options.port = 50061;
  options.admin_port = 9090;
  options.drain_timeout = std::chrono::seconds(5);
  int64_t replication = 1;
  std::string lease = "none";
  RouterConfig config;
  OptionTable table("bottega-router",
                    "The map of a cluster: who is alive, who holds which experts.");
  AddProcessOptions(table, &options, "port that members register at");
  table.Add("replication", &replication, "workers that hold each expert")
      .Range(1, 64)
      .Add("suspect-after", &config.liveness.suspect_after, "silence before a member is suspected")
      .Add("dead-after", &config.liveness.dead_after, "silence before a member is given up")
      .Add("settle", &config.settle, "wait for more expert workers before placing on new ones")
      .Add("rebalance-interval", &config.rebalance_interval, "how often measured load is looked at")
      .Add("lease", &lease,
           "which of several routers writes: none, file:PATH (one host), "
           "etcd:http://HOST:PORT/KEY")
      .Add("lease-ttl", &config.lease_ttl, "how long a writer that stands still holds the lease");
  if (std::optional<int> code = ParseOrExit(table, argc, argv, nullptr)) return *code;
  config.replication = static_cast<uint32_t>(replication);

  auto process = ServiceProcess::Start(Role::kRouter, options);
  if (!process.ok()) return ExitCode(process.status());
  config.listen = (*process)->listen();
  auto opened = OpenLease((*process)->loop(), lease, config.lease_ttl, options.name);
  if (!opened.ok()) return ExitCode(opened.status());
  RouterServer server((*process)->context(), config, *std::move(opened));
  if (absl::Status started = server.Start(); !started.ok()) return ExitCode(started);
  (*process)->context().log.Info(
      fmt::format("router at {}, admin at {}", server.address(), (*process)->admin_address()));
  return ExitCode(
      (*process)->Run([&](Time deadline) { return StepDown(&server, deadline); },
                      [&] { return std::string(server.ready() ? "ready" : "loading"); }));
}

}  // namespace bottega
