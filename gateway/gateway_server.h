#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/cluster/table.h"
#include "core/service/context.h"
#include "gateway/config.h"
#include "gateway/http/http_server.h"
#include "gateway/text.h"

namespace bottega {

namespace gateway {
class GatewayService;
}

// The gateway of one model: HTTP in front, streams to the attention workers of the table behind.
// All calls on the loop's thread and not from the context's own tasks; status() from any.
//
//   GatewayServer server(context, config, model);
//   absl::StatusOr<int> port = server.Start();
//   server.UpdateTable(snapshot);                       // whenever there is a new one
//   absl::Status drained = co_await server.Drain(deadline);
//   server.Stop();
class GatewayServer {
 public:
  // `context` outlives this.
  GatewayServer(const ServiceContext& context, GatewayConfig config, ModelText model);
  ~GatewayServer();  // Stop

  // Listens; returns the port. A busy port is Unavailable with the address in the message.
  absl::StatusOr<int> Start();
  void UpdateTable(TableSnapshot table);
  // Whom to ask how the cluster is, for GET /v1/cluster; without it the gateway's own table is
  // shown.
  void KnowRouters(const std::string& routers);
  // Stops listening, lets the open connections finish what they asked, refuses the rest (503
  // draining). What is not finished at the deadline is told so and ended.
  Task<absl::Status> Drain(Time deadline);
  // Ends everything: connections, streams, the node's tasks, threads.
  void Stop();

  // What /ready says: "ready", "loading", "no_worker", "experts_unavailable", "draining".
  std::string status() const;
  size_t live_requests() const;
  // For the log: what was done in the `span` since the last call; "" if nothing.
  std::string BusyLine(Duration span);
  // The way in for callers without HTTP.
  gateway::GatewayService& service() { return *service_; }

 private:
  Task<void> ListenWhenReady();
  Task<void> WaitForConnections(Time until);  // to be gone

  const ServiceContext& context_;
  std::shared_ptr<gateway::GatewayService> service_;
  std::unique_ptr<gateway::HttpServer> http_;
  std::atomic<bool> listening_ = false;
};

}  // namespace bottega
