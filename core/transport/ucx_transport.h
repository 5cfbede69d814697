#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/loop.h"
#include "core/transport/transport.h"

namespace bottega {

struct UcxOptions {
  std::string tls = "tcp";     // UCX_TLS, unless the environment sets it: "tcp", "rc,tcp", ...
  std::string devices = "lo";  // UCX_NET_DEVICES, likewise; "all" for every interface
  size_t pool_bytes = size_t{64} << 20;
};

// Frames as UCX active messages (UCX 1.13), always eager: rendezvous costs five traversals of the
// network. Peers that UCX reports as lost go down; UCX alone never sees a stopped peer, so whoever
// uses this keeps a death signal and deadlines of its own. Sleeps by arm and epoll, never
// busy-polls.
//
// UCX listens on a port of its own and parses what strangers send before any check of ours: bind it
// to a private interface (`devices`).
//
// Real loops only. The loop outlives it.
absl::StatusOr<std::unique_ptr<Transport>> OpenUcxTransport(Loop& loop, const UcxOptions& options);

}  // namespace bottega
