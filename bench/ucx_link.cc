#include "bench/ucx_link.h"

#include <cstring>
#include <utility>

#include "bench/forked_process.h"
#include "core/base/check.h"
#include "core/base/limits.h"

namespace bottega {

UcxLink::UcxLink(int control, const std::string& exchange) : loop_(Loop::Real()) {
  auto opened = UcxTransport::Create(*loop_, {.exchange = exchange});
  CHECK(opened.ok());
  transport_ = *std::move(opened);
  transport_->SetEvents({.on_frame = [this](FrameBuffer frame) { on_frame_(frame.bytes()); },
                         .on_down = [this](EndpointId, absl::Status) { loop_->Stop(); }});
  auto endpoint = transport_->Open(transport_->offer().kinds.front());
  CHECK(endpoint.ok());
  peer_ = *endpoint;
  WriteString(control, transport_->address(peer_));
  CHECK(transport_->Connect(peer_, ReadString(control)).ok());
}

void UcxLink::Send(absl::Span<const std::byte> bytes) {
  auto frame = transport_->Lease(bytes.size());
  CHECK(frame.ok());
  std::memcpy(frame->data(), bytes.data(), bytes.size());
  CHECK(transport_->Post(peer_, *std::move(frame)).ok());
}

size_t UcxLink::frame_bytes_max() const { return limits::kPartBytesMax; }

void UcxLink::Run(std::function<void()> start, OnFrame on_frame) {
  on_frame_ = std::move(on_frame);
  start();
  loop_->Run();
}

void UcxLink::Serve(int control) {
  loop_->WatchFd(control, [this] { loop_->Stop(); });
  Run([] {}, [this](absl::Span<const std::byte> frame) { Respond(*this, frame); });
  loop_->UnwatchFd(control);
}

}  // namespace bottega
