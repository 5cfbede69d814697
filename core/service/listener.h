#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/loop.h"
#include "core/base/strong_id.h"

namespace bottega {

// A listening TCP socket of the loop. It is our own because gRPC 1.51 never accepts again once it
// has been out of descriptors (CVE-2023-4785): this one pauses, and takes up what waits in the
// kernel's queue when there are descriptors again. Loop thread only.
class Listener {
 public:
  // `address` is host:port, port 0 picks one; a busy port is Unavailable. `node` carries the pause.
  // Each connection is given to `on_connection`, which owns it.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(Loop& loop, NodeId node,
                                                        const std::string& address,
                                                        std::function<void(int fd)> on_connection);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const { return port_; }

 private:
  // For the pause, which may outlive the listener.
  struct Alive {
    Listener* listener;
  };

  Listener(Loop& loop, NodeId node, std::function<void(int fd)> on_connection)
      : loop_(loop), node_(node), on_connection_(std::move(on_connection)) {}
  absl::Status Bind(const std::string& address);
  void Watch();
  void Accept();
  static Task<void> Resume(Loop* loop, std::weak_ptr<Alive> alive);

  Loop& loop_;
  const NodeId node_;
  const std::function<void(int fd)> on_connection_;
  int fd_ = -1;
  int port_ = 0;
  std::shared_ptr<Alive> alive_ = std::make_shared<Alive>(Alive{this});
};

}  // namespace bottega
