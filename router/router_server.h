#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "core/service/context.h"
#include "router/config.h"
#include "router/lease.h"

namespace bottega {

namespace router {
struct Leadership;
}

// The map of a cluster: who is alive, which worker holds which experts, where replicas go. Never on
// the path of a token; its state is soft. Of several routers the one with the lease writes. Loop
// thread only; the context outlives it.
class RouterServer {
 public:
  RouterServer(ServiceContext& context, RouterConfig config,
               std::unique_ptr<Lease> lease = SoleLease());
  ~RouterServer();

  // Serves, and asks for the lease. Unavailable when the address is taken.
  absl::Status Start();
  // Ends every session and gives up the lease, so that another router writes at once.
  Task<absl::Status> Drain(Time deadline);
  // Ends every session; members go on with their last table.
  void Stop();

  const std::string& address() const { return address_; }
  bool writes() const;
  TableSnapshot table() const;  // nullptr before the first member, and of a standby
  // Has had time to hear of every member that was there before it began to write; or stands by.
  bool ready() const;

 private:
  ServiceContext& context_;
  std::shared_ptr<router::Leadership> leadership_;
  std::string address_;
};

}  // namespace bottega
