#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "core/base/inbox.h"
#include "core/service/network.h"

// Inside of grpc_network: the two ends of a stream over gRPC's callback API. Nothing else includes
// this.
namespace bottega::grpc_internal {

// Where gRPC's threads hand things to the loop, for as long as the network exists. Also counts the
// calls that are open, so that an end can wait for them.
class LoopDoor {
 public:
  explicit LoopDoor(Loop& loop) : loop_(&loop) {}
  void Post(absl::AnyInvocable<void()> fn) ABSL_LOCKS_EXCLUDED(mutex_);
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);
  void Opened() ABSL_LOCKS_EXCLUDED(mutex_);
  void Done() ABSL_LOCKS_EXCLUDED(mutex_);
  size_t open() const ABSL_LOCKS_EXCLUDED(mutex_);
  // False if calls are still open after `timeout`.
  bool WaitForNone(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  Loop* loop_ ABSL_GUARDED_BY(mutex_);
  size_t open_ ABSL_GUARDED_BY(mutex_) = 0;
};

// What both ends share: one queue out, one queue in, both bounded.
//
// Wire: one message, one gRPC message, as it is; but a first byte of 0 (no protobuf message begins
// so) is an escape: 0 0 <rest> is the message 0 <rest>, and 0 1 <WireStatus> says that this end
// closes. A client always says so before it half-closes: without it, the end of the bytes means
// that the process is gone. A server says it with gRPC's own status.
//
// Threads: Send, Receive, Close and Drop run on the loop; ReadDone, WriteDone and what calls them
// on gRPC's threads. gRPC never calls back from inside a Start, so mutex_ is held over them; this
// keeps a Start from coming after the end of the call.
class StreamCore : public std::enable_shared_from_this<StreamCore> {
 public:
  StreamCore(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId node, std::string peer);
  virtual ~StreamCore() = default;

  absl::Status Send(std::string message) ABSL_LOCKS_EXCLUDED(mutex_);
  Task<absl::StatusOr<std::string>> Receive(Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  void Close(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_);
  void Drop() ABSL_LOCKS_EXCLUDED(mutex_);
  // Cancels the call; the network is going away. Loop thread.
  void Abort(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Has said goodbye and waits for the bytes to leave.
  bool closing() const ABSL_LOCKS_EXCLUDED(mutex_);
  NodeId node() const { return node_; }
  const std::string& peer() const { return peer_; }

 protected:
  virtual void StartReadOp(grpc::ByteBuffer* buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  virtual void StartWriteOp(const grpc::ByteBuffer* buffer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // The queue is out: tell the peer that this end closes.
  virtual void SendClose(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // No more can be read; `said` is the peer's closing message, if there was one.
  virtual void ReadEnded(std::optional<absl::Status> said)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // After a write ended, a drop, an abort: whatever is left to do for the call to end.
  virtual void Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  virtual void Cancel() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
  // The face is gone without a Close.
  virtual void Abandon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;

  void MaybeRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MaybeWrite() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void WriteDone(bool ok) ABSL_LOCKS_EXCLUDED(mutex_);
  void CloseOut() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Posts the end: what has arrived is received before it.
  void PostEnd(absl::Status why);
  // Of the loop: nothing can be sent or will arrive any more.
  void EndNow(absl::Status why);

  const std::shared_ptr<LoopDoor> door_;
  const NodeId node_;
  const std::string peer_;

  // Loop thread only.
  Inbox<std::string> inbox_;
  absl::Status end_;

  mutable absl::Mutex mutex_;
  bool ops_open_ ABSL_GUARDED_BY(mutex_) = false;  // Start calls are allowed
  bool dropped_ ABSL_GUARDED_BY(mutex_) = false;
  bool discard_ ABSL_GUARDED_BY(mutex_) = false;  // nobody receives: read on, keep nothing
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  // In.
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_ended_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer read_buffer_;  // of the read under way
  size_t in_messages_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t in_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> said_ ABSL_GUARDED_BY(mutex_);
  // Out.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool out_closed_ ABSL_GUARDED_BY(mutex_) =
      false;                       // a write failed or nobody reads: out_ is empty
  grpc::ByteBuffer write_buffer_;  // of the write under way
  std::deque<std::string> out_ ABSL_GUARDED_BY(mutex_);
  size_t out_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closing_ ABSL_GUARDED_BY(mutex_);
  bool close_sent_ ABSL_GUARDED_BY(mutex_) = false;
};

inline constexpr char kStreamKey[] = "bottega-stream";  // metadata both ways: "we speak the above"
inline constexpr char kStreamVersion[] = "1";

class ClientStream : public StreamCore,
                     private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  ClientStream(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId self, std::string address,
               std::shared_ptr<grpc::Channel> channel);
  void Start(const std::string& method);
  // Ok when the server has answered; else why it did not.
  Task<absl::Status> WaitForAnswer(Time deadline);

 private:
  void StartReadOp(grpc::ByteBuffer* buffer) override { StartRead(buffer); }
  void StartWriteOp(const grpc::ByteBuffer* buffer) override { StartWrite(buffer); }
  void SendClose(const absl::Status& why) override;
  void ReadEnded(std::optional<absl::Status> said) override;
  void Settle() override;
  void Cancel() override { context_.TryCancel(); }
  void Abandon() override { Cancel(); }

  void OnReadInitialMetadataDone(bool ok) override;
  void OnReadDone(bool ok) override { ReadDone(ok); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnDone(const grpc::Status& status) override;

  void LetGo() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  std::shared_ptr<StreamCore> self_;  // until OnDone
  Slot answered_;                     // loop thread only, as the next two
  bool answer_ = false;
};

class ServerStream : public StreamCore, public grpc::ServerGenericBidiReactor {
 public:
  ServerStream(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId self,
               grpc::GenericCallbackServerContext* context);
  void Start();

 private:
  void StartReadOp(grpc::ByteBuffer* buffer) override { StartRead(buffer); }
  void StartWriteOp(const grpc::ByteBuffer* buffer) override { StartWrite(buffer); }
  void SendClose(const absl::Status& why) override;
  void ReadEnded(std::optional<absl::Status> said) override;
  void Settle() override;
  void Cancel() override;
  void Abandon() override;

  void OnReadDone(bool ok) override { ReadDone(ok); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnCancel() override;
  void OnDone() override;

  void FinishWith(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::GenericCallbackServerContext* const context_;  // gRPC's, until OnDone
  const bool ours_;                                    // the client speaks our closing message
  bool peer_gone_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<StreamCore> self_;  // until OnDone
};

// The loop's face of either end.
class GrpcByteStream : public ByteStream {
 public:
  explicit GrpcByteStream(std::shared_ptr<StreamCore> core) : core_(std::move(core)) {}
  ~GrpcByteStream() override { core_->Drop(); }
  absl::Status Send(std::string message) override { return core_->Send(std::move(message)); }
  Task<absl::StatusOr<std::string>> Receive(Time deadline) override {
    return core_->Receive(deadline);
  }
  void Close(absl::Status why) override { core_->Close(std::move(why)); }
  std::string peer() const override { return core_->peer(); }

 private:
  std::shared_ptr<StreamCore> core_;
};

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace bottega::grpc_internal
