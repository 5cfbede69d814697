#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "core/service/context.h"
#include "router/config.h"

namespace bottega {

namespace router {
struct RouterState;
}

// The map of a cluster: who is alive, which worker holds which experts, where replicas go. Never on
// the path of a token; its state is soft. Loop thread only; the context outlives it.
class RouterServer {
 public:
  RouterServer(ServiceContext& context, RouterConfig config);
  ~RouterServer();

  // Serves and starts the background tasks. Unavailable when the address is taken.
  absl::Status Start();
  // Ends every session; members go on with their last table.
  void Stop();

  const std::string& address() const { return address_; }
  TableSnapshot table() const;  // nullptr before the first member
  // Has had time to hear of every member that was there before it started.
  bool ready() const;

 private:
  ServiceContext& context_;
  std::shared_ptr<router::RouterState> state_;
  std::string address_;
};

}  // namespace bottega
