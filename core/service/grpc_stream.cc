#include "core/service/grpc_stream.h"

#include "core/base/limits.h"
#include "core/service/status_codec.h"

namespace bottega::grpc_internal {
namespace {

constexpr char kEscape = '\0';
constexpr char kEscapedMessage = '\0';
constexpr char kEscapedClose = '\1';

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      std::string(status.message().substr(0, kStatusMessageBytesMax)),
                      EncodeStatus(status));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::CancelledError("closed");
  absl::Status plain(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (status.error_details().empty()) {
    // Not said by our code but by gRPC: the call was torn down.
    return absl::IsCancelled(plain) ? absl::UnavailableError("peer went away") : plain;
  }
  absl::Status rich = DecodeStatus(status.error_details(), plain);
  return rich.code() == plain.code() ? rich : plain;
}

void LoopDoor::Post(absl::AnyInvocable<void()> fn) {
  absl::MutexLock lock(&mutex_);
  if (loop_ != nullptr) loop_->Post(std::move(fn));
}
void LoopDoor::Close() {
  absl::MutexLock lock(&mutex_);
  loop_ = nullptr;
}
void LoopDoor::Opened() {
  absl::MutexLock lock(&mutex_);
  ++open_;
}
void LoopDoor::Done() {
  absl::MutexLock lock(&mutex_);
  --open_;
}
size_t LoopDoor::open() const {
  absl::MutexLock lock(&mutex_);
  return open_;
}
bool LoopDoor::WaitForNone(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_ == 0; };
  return mutex_.AwaitWithTimeout(absl::Condition(&none), timeout);
}

// ---- both ends

StreamCore::StreamCore(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId node, std::string peer)
    : door_(std::move(door)),
      node_(node),
      peer_(std::move(peer)),
      inbox_(loop, limits::kStreamMessagesMax * 2) {}

absl::Status StreamCore::Send(std::string message) {
  if (!end_.ok()) return end_;
  if (message.size() >= limits::kControlMessageBytesMax) {
    return absl::InvalidArgumentError("message larger than kControlMessageBytesMax");
  }
  if (!message.empty() && message[0] == kEscape) message.insert(0, 1, kEscape);
  absl::MutexLock lock(&mutex_);
  if (out_closed_ || !ops_open_) return absl::UnavailableError("the stream broke");
  if (out_.size() >= limits::kStreamMessagesMax ||
      out_bytes_ + message.size() > limits::kStreamQueueBytesMax) {
    return absl::ResourceExhaustedError("the peer does not read");
  }
  out_bytes_ += message.size();
  out_.push_back(std::move(message));
  MaybeWrite();
  return absl::OkStatus();
}

Task<absl::StatusOr<std::string>> StreamCore::Receive(Time deadline) {
  absl::StatusOr<std::string> message = co_await inbox_.Receive(deadline);
  if (message.ok()) {
    absl::MutexLock lock(&mutex_);
    --in_messages_;
    in_bytes_ -= message->size();
    MaybeRead();
  }
  co_return message;
}

void StreamCore::Close(absl::Status why) {
  if (!end_.ok()) return;
  if (why.ok()) why = absl::CancelledError("closed");
  EndNow(why);
  absl::MutexLock lock(&mutex_);
  closing_ = std::move(why);
  discard_ = true;
  MaybeWrite();
  MaybeRead();
  Settle();
}

void StreamCore::Drop() {
  absl::MutexLock lock(&mutex_);
  dropped_ = true;
  discard_ = true;
  if (!closing_.has_value()) {
    CloseOut();
    Abandon();
  }
  MaybeRead();
  Settle();
}

void StreamCore::Abort(absl::Status why) {
  EndNow(why);
  absl::MutexLock lock(&mutex_);
  discard_ = true;
  CloseOut();
  Cancel();
  MaybeRead();
  Settle();
}

bool StreamCore::closing() const {
  absl::MutexLock lock(&mutex_);
  return closing_.has_value();
}

void StreamCore::MaybeRead() {
  if (!ops_open_ || reading_ || read_ended_) return;
  const bool room = in_messages_ < limits::kStreamMessagesMax &&
                    in_bytes_ + limits::kControlMessageBytesMax <= limits::kStreamQueueBytesMax;
  // A call that is over is read to its end, past the bound by what gRPC holds already.
  if (!room && !discard_ && !cancelled_) return;
  reading_ = true;
  StartReadOp(&read_buffer_);
}

void StreamCore::MaybeWrite() {
  if (!ops_open_ || writing_ || out_closed_) return;
  if (!out_.empty()) {
    write_buffer_ = ToBuffer(out_.front());
    writing_ = true;
    StartWriteOp(&write_buffer_);
  } else if (closing_.has_value() && !close_sent_) {
    close_sent_ = true;
    SendClose(*closing_);
  }
}

void StreamCore::ReadDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  reading_ = false;
  if (!ok) {
    read_ended_ = true;
    ReadEnded(said_);
    return;
  }
  std::string message = ToString(read_buffer_);
  if (message.size() >= 2 && message[0] == kEscape && message[1] == kEscapedClose) {
    said_ = DecodeStatus(std::string_view(message).substr(2), absl::CancelledError("closed"));
    if (said_->ok()) said_ = absl::CancelledError("closed");
  } else if (!discard_) {
    if (!message.empty() && message[0] == kEscape) message.erase(0, 1);
    ++in_messages_;
    in_bytes_ += message.size();
    door_->Post([self = shared_from_this(), message = std::move(message)]() mutable {
      self->inbox_.Push(std::move(message));  // refuses after the end: nobody waits for it
    });
  }
  MaybeRead();
}

void StreamCore::WriteDone(bool ok) {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  if (!out_.empty()) {
    out_bytes_ -= out_.front().size();
    out_.pop_front();
  }
  if (!ok) CloseOut();
  MaybeWrite();
  Settle();
}

void StreamCore::CloseOut() {
  out_closed_ = true;
  out_.clear();
  out_bytes_ = 0;
}

void StreamCore::EndNow(absl::Status why) {
  if (!end_.ok()) return;
  end_ = why;
  inbox_.Close(std::move(why));
}

void StreamCore::PostEnd(absl::Status why) {
  door_->Post([self = shared_from_this(), why = std::move(why)] { self->EndNow(why); });
}

// ---- client

ClientStream::ClientStream(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId self,
                           std::string address, std::shared_ptr<grpc::Channel> channel)
    : StreamCore(std::move(door), loop, self, std::move(address)),
      stub_(std::move(channel)),
      answered_(loop) {}

void ClientStream::Start(const std::string& method) {
  self_ = shared_from_this();
  door_->Opened();
  context_.AddMetadata(kStreamKey, kStreamVersion);
  stub_.PrepareBidiStreamingCall(&context_, method, {}, this);
  absl::MutexLock lock(&mutex_);
  ops_open_ = true;
  AddHold();  // reads and writes start outside of reactions
  StartCall();
  MaybeRead();
}

Task<absl::Status> ClientStream::WaitForAnswer(Time deadline) {
  while (!answer_ && end_.ok()) {
    absl::Status woken = co_await answered_.Wait(deadline);
    if (!woken.ok() && !answer_ && end_.ok()) {
      co_return absl::UnavailableError("no answer from " + peer_);
    }
  }
  co_return answer_ ? absl::OkStatus() : end_;
}

void ClientStream::OnReadInitialMetadataDone(bool ok) {
  if (!ok || !context_.GetServerInitialMetadata().contains(kStreamKey)) return;  // OnDone follows
  door_->Post([this, self = shared_from_this()] {
    answer_ = true;
    answered_.Wake();
  });
}

void ClientStream::SendClose(const absl::Status& why) {
  std::string bytes{kEscape, kEscapedClose};
  bytes += EncodeStatus(why);
  write_buffer_ = ToBuffer(bytes);
  writing_ = true;
  StartWriteLast(&write_buffer_, grpc::WriteOptions());
}

void ClientStream::ReadEnded(std::optional<absl::Status>) { LetGo(); }

void ClientStream::Settle() {
  // Without a read under way nobody would notice that the call is over.
  if (dropped_ && !reading_ && !closing_.has_value()) LetGo();
}

void ClientStream::LetGo() {
  if (!ops_open_) return;
  ops_open_ = false;
  RemoveHold();
}

// The loop drops the last reference: with it goes the channel, and the last channel of a process
// joins gRPC's callback threads, of which this is one.
void ClientStream::OnDone(const grpc::Status& status) {
  std::shared_ptr<LoopDoor> door = door_;
  door->Post([this, self = std::move(self_), why = FromGrpc(status)] {
    EndNow(why);
    answered_.Wake();
  });
  door->Done();
}

// ---- server

ServerStream::ServerStream(std::shared_ptr<LoopDoor> door, Loop& loop, NodeId self,
                           grpc::GenericCallbackServerContext* context)
    : StreamCore(std::move(door), loop, self, context->peer()),
      context_(context),
      ours_(context->client_metadata().contains(kStreamKey)) {}

void ServerStream::Start() {
  self_ = shared_from_this();
  door_->Opened();
  context_->AddInitialMetadata(kStreamKey, kStreamVersion);
  absl::MutexLock lock(&mutex_);
  ops_open_ = true;
  StartSendInitialMetadata();
  MaybeRead();
}

void ServerStream::SendClose(const absl::Status& why) {
  FinishWith(absl::IsCancelled(why) && why.message() == "closed" ? absl::OkStatus() : why);
}

// Ours without a closing message: gone. A foreign client that half-closes may still want answers.
void ServerStream::ReadEnded(std::optional<absl::Status> said) {
  if (!ours_ && !cancelled_) {
    door_->Post(
        [this, self = shared_from_this()] { inbox_.Close(absl::CancelledError("closed")); });
    return;
  }
  PostEnd(said.value_or(absl::UnavailableError("peer went away")));
  peer_gone_ = true;
  CloseOut();
  Settle();
}

void ServerStream::Settle() {
  if (!ops_open_ || writing_) return;
  if (peer_gone_ || (cancelled_ && read_ended_)) {
    FinishWith(absl::OkStatus());
  } else if (dropped_ && !closing_.has_value()) {
    FinishWith(absl::UnavailableError("peer went away"));
  } else if (closing_.has_value() && out_closed_) {
    FinishWith(*closing_);
  }
}

void ServerStream::FinishWith(const absl::Status& why) {
  if (!ops_open_) return;
  ops_open_ = false;
  Finish(ToGrpc(why));
}

void ServerStream::Cancel() {
  if (ops_open_) context_->TryCancel();  // after Finish the context may be gone
}

// A write under way may be stuck at a peer that does not read.
void ServerStream::Abandon() {
  if (writing_) Cancel();
}

void ServerStream::OnCancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (read_ended_ && ops_open_) PostEnd(absl::UnavailableError("peer went away"));
  MaybeRead();
  Settle();
}

void ServerStream::OnDone() {
  PostEnd(absl::UnavailableError("peer went away"));  // the first end counts
  std::shared_ptr<LoopDoor> door = door_;
  self_.reset();  // may be the last
  door->Done();
}

}  // namespace bottega::grpc_internal
