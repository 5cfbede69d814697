#pragma once

#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace bottega::grpc_internal {

// The listening socket of a gRPC server, accepted from by us. gRPC 1.51's own listener never
// accepts again after it once ran out of fds (CVE-2023-4785), and it has no cap on connections.
// Here accepting pauses while few fds are left, for the kernel's queue to hold the rest, and
// resumes.
class GrpcListener {
 public:
  // host:port, port 0 picks one; a host name or [v6] too.
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Listen(const std::string& address);
  ~GrpcListener();  // no more connections; before the server's own shutdown

  int port() const { return port_; }
  // Hands connections to a server that has started. Once.
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server);

 private:
  GrpcListener(int fd, int stop_fd, int port) : fd_(fd), stop_fd_(stop_fd), port_(port) {}
  void Run();
  bool Accept();

  const int fd_;
  const int stop_fd_;  // readable: end
  const int port_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server_;
  std::thread thread_;
};

}  // namespace bottega::grpc_internal
