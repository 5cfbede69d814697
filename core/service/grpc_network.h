#pragma once

#include <memory>

#include "core/service/network.h"

namespace bottega {

// Network between processes, over gRPC's generic callback API: one implementation for all internal
// methods, told apart by path. One TCP connection per stream, so that a stuck one holds up nothing
// else and its end is a death signal (≈ 2 ms for a killed process, ≤ 1.6 s for a stopped or cut
// one, by keepalive).
//
// Threads: gRPC's own threads only move bytes and Post to the loop. What is queued is bounded by
// limits::kStreamMessagesMax and kStreamQueueBytesMax in both directions; past that, gRPC's flow
// control holds the sender back and its Send returns ResourceExhausted.
//
// The loop outlives this object. Streams may outlive it, and then they are ended.
class GrpcNetwork : public Network {
 public:
  explicit GrpcNetwork(Loop& loop);
  ~GrpcNetwork() override;  // ends everything; bounded in time

  Task<absl::StatusOr<std::unique_ptr<ByteStream>>> Connect(NodeId self, std::string address,
                                                            std::string method,
                                                            Time deadline) override;
  absl::StatusOr<std::string> Serve(NodeId self, const std::string& address,
                                    std::vector<std::pair<std::string, Handler>> methods) override;
  void Shutdown(NodeId self) override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace bottega
