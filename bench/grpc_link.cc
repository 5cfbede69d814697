#include "bench/grpc_link.h"

#include <fmt/format.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <limits>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "bench/forked_process.h"
#include "core/base/check.h"
#include "core/tensor/aligned_buffer.h"

namespace bottega {
namespace {

// Frame memory that gRPC reads and gives back, from any thread, when it is sent. Never destroyed:
// gRPC may hold a slice past the end of its stream.
class SlicePool {
 public:
  static SlicePool& Get() {
    static auto* pool = new SlicePool;
    return *pool;
  }

  grpc::ByteBuffer Copy(absl::Span<const std::byte> bytes) {
    Block* block = Take();
    std::memcpy(block->memory.data(), bytes.data(), bytes.size());
    const grpc::Slice slice(block->memory.data(), bytes.size(), &GiveBack, block);
    return grpc::ByteBuffer(&slice, 1);
  }

 private:
  struct Block {
    AlignedBuffer memory;
  };

  Block* Take() {
    absl::MutexLock lock(&mutex_);
    if (free_.empty()) return new Block{AlignedBuffer(kMessageBytesMax)};
    Block* block = free_.back();
    free_.pop_back();
    return block;
  }
  static void GiveBack(void* block) {
    absl::MutexLock lock(&Get().mutex_);
    Get().free_.push_back(static_cast<Block*>(block));
  }

  absl::Mutex mutex_;
  std::vector<Block*> free_ ABSL_GUARDED_BY(mutex_);  // the last one back is the warmest
};

// Either end of the stream.
template <typename Reactor>
class GrpcLink : public FrameLink, public Reactor {
 public:
  void Send(absl::Span<const std::byte> frame) override {
    mutex_.AssertHeld();
    queue_.push_back(SlicePool::Get().Copy(frame));
    MaybeWrite();
  }
  size_t frame_bytes_max() const override { return std::numeric_limits<size_t>::max(); }

  void Run(std::function<void()> start, OnFrame on_frame) override {
    absl::MutexLock lock(&mutex_);
    on_frame_ = std::move(on_frame);
    stopped_ = false;
    start();
    mutex_.Await(absl::Condition(
        +[](GrpcLink* link) { return link->stopped_ || link->over_; }, this));
  }
  void Stop() override { stopped_ = true; }

  void OnReadDone(bool ok) override {
    if (!ok) return ReadEnded();
    CHECK(arrived_.Dump(&slices_).ok());
    size_t bytes = 0;
    for (const grpc::Slice& slice : slices_) {
      CHECK(bytes + slice.size() <= kMessageBytesMax);
      std::memcpy(frame_.data() + bytes, slice.begin(), slice.size());
      bytes += slice.size();
    }
    {
      absl::MutexLock lock(&mutex_);
      on_frame_({frame_.data(), bytes});
    }
    this->StartRead(&arrived_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return;  // the stream is over
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    MaybeWrite();
  }

 protected:
  virtual void ReadEnded() = 0;
  void SetOver() {
    absl::MutexLock lock(&mutex_);
    over_ = true;
  }

  OnFrame on_frame_;
  grpc::ByteBuffer arrived_;

 private:
  void MaybeWrite() {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    writes_ = std::move(queue_.front());
    queue_.pop_front();
    grpc::WriteOptions options;
    if (!queue_.empty()) options.set_buffer_hint();
    this->StartWrite(&writes_, options);
  }

  AlignedBuffer frame_{kMessageBytesMax};
  std::vector<grpc::Slice> slices_;

  absl::Mutex mutex_;
  std::deque<grpc::ByteBuffer> queue_;
  grpc::ByteBuffer writes_;
  bool writing_ = false;
  bool stopped_ = false;
  bool over_ = false;
};

class GrpcClient final
    : public GrpcLink<grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  explicit GrpcClient(std::shared_ptr<grpc::Channel> channel) : stub_(std::move(channel)) {
    stub_.PrepareBidiStreamingCall(&context_, "/bottega.Bench/Frames", {}, this);
    AddHold();  // writes start outside of reactions
    StartRead(&arrived_);
    StartCall();
  }
  ~GrpcClient() override {
    context_.TryCancel();
    RemoveHold();
    Run([] {}, [](absl::Span<const std::byte>) {});  // until it is over
  }

 private:
  void ReadEnded() override {}
  void OnDone(const grpc::Status&) override { SetOver(); }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
};

class GrpcAnswerer final : public GrpcLink<grpc::ServerGenericBidiReactor> {
 public:
  GrpcAnswerer() {
    on_frame_ = [this](absl::Span<const std::byte> frame) { Respond(*this, frame); };
    StartRead(&arrived_);
  }

 private:
  void ReadEnded() override { Finish(grpc::Status::OK); }
  void OnDone() override { delete this; }
};

class Service final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new GrpcAnswerer;
  }
};

constexpr int kHttp2FrameBytes = (16 << 20) - 1;  // the most it allows

}  // namespace

std::unique_ptr<FrameLink> ConnectGrpc(int control) {
  const std::string address = ReadString(control);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  return std::make_unique<GrpcClient>(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

void ServeGrpc(int control) {
  // Abstract: there is no file that could be left behind.
  const std::string address = fmt::format("unix-abstract:bottega-exchange-bench-{}", getpid());
  Service service;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&service);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kHttp2FrameBytes);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  CHECK(server != nullptr);
  WriteString(control, address);
  char byte;
  CHECK(!ReadAll(control, &byte, 1));
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace bottega
