#pragma once

#include <memory>
#include <string>
#include <vector>

#include "bottega/internal/v1/membership.pb.h"
#include "core/service/network.h"

namespace bottega {

// Asks the router how its cluster is; of several the one that writes. The stream stays open for the
// next question. Loop thread only, one question at a time.
class StatusClient {
 public:
  // `routers`: host:port, of several all by commas.
  StatusClient(Loop& loop, Network& network, NodeId self, const std::string& routers);
  ~StatusClient();

  // Unavailable, with the last one's reason, if no router answers and writes, each within
  // `timeout`.
  Task<absl::StatusOr<internal::v1::StatusReply>> Ask(Duration timeout);

 private:
  using Stream = MessageStream<internal::v1::StatusRequest, internal::v1::StatusReply>;

  // The one at `at_`, over the stream that is open, if one is.
  Task<absl::StatusOr<internal::v1::StatusReply>> AskOne(Time by);

  Loop& loop_;
  Network& network_;
  const NodeId self_;
  const std::vector<std::string> addresses_;
  size_t at_ = 0;  // in addresses_: who wrote last, or is asked next
  std::unique_ptr<Stream> stream_;
};

}  // namespace bottega
