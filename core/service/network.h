#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/loop.h"

namespace bottega {

// One bidirectional stream of messages between two processes of the cluster, seen from the loop:
// gRPC underneath, or a queue in the same process (`serve`, the fabric). Messages arrive whole and
// in order, or the stream ends. Loop thread only. Dropping the object ends the stream.
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Queues a message. ResourceExhausted when the peer does not read (the queue is bounded), else
  // the status with which the stream ended.
  virtual absl::Status Send(std::string message) = 0;
  // The next message; DeadlineExceeded, which is nothing but `deadline`; or the status with which
  // the stream ended (an orderly end by the peer is Cancelled("closed")). One receiver at a time.
  virtual Task<absl::StatusOr<std::string>> Receive(Time deadline) = 0;
  // Ends the stream after what is queued; `why` reaches the peer.
  virtual void Close(absl::Status why) = 0;
  // Who is at the other end, for logs.
  virtual std::string peer() const = 0;
};

// How one process reaches another for control messages. `method` is the gRPC method path
// ("/bottega.internal.v1.Router/Session"), also in process. The seam that the fabric replaces.
class Network {
 public:
  // Runs as a task of the serving node for each incoming stream.
  using Handler = std::function<Task<void>(std::unique_ptr<ByteStream>)>;

  virtual ~Network() = default;
  // Opens a stream; Unavailable when nobody answers before `deadline`.
  virtual Task<absl::StatusOr<std::unique_ptr<ByteStream>>> Connect(NodeId self,
                                                                    std::string address,
                                                                    std::string method,
                                                                    Time deadline) = 0;
  // Serves `methods` at `address` ("127.0.0.1:0" picks a port) for `self`; returns the address that
  // others connect to.
  virtual absl::StatusOr<std::string> Serve(
      NodeId self, const std::string& address,
      std::vector<std::pair<std::string, Handler>> methods) = 0;
  // Refuses new streams and ends the open ones of `self`.
  virtual void Shutdown(NodeId self) = 0;
};

// A ByteStream that carries protobuf messages: Out goes, In comes.
template <class Out, class In>
class MessageStream {
 public:
  explicit MessageStream(std::unique_ptr<ByteStream> bytes) : bytes_(std::move(bytes)) {}

  absl::Status Send(const Out& message) { return bytes_->Send(message.SerializeAsString()); }

  Task<absl::StatusOr<In>> Receive(Time deadline = kNever) {
    absl::StatusOr<std::string> bytes = co_await bytes_->Receive(deadline);
    if (!bytes.ok()) co_return bytes.status();
    In message;
    if (!message.ParseFromString(*bytes)) {
      co_return absl::InvalidArgumentError("peer sent bytes that are no " +
                                           In::descriptor()->name());
    }
    co_return message;
  }

  void Close(absl::Status why) { bytes_->Close(std::move(why)); }
  std::string peer() const { return bytes_->peer(); }

 private:
  std::unique_ptr<ByteStream> bytes_;
};

}  // namespace bottega
