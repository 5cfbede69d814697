#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/base/strong_id.h"

namespace bottega {

using EndpointId = StrongId<struct EndpointTag, uint32_t>;

// A leased piece of a transport's registered memory: filled by its holder, given to Post, or, when
// it carries an arrived frame, read and dropped. Dropping it gives the memory back. Loop thread
// only.
class FrameBuffer {
 public:
  using Release = void (*)(void* owner, void* token);
  FrameBuffer() = default;
  FrameBuffer(std::byte* data, size_t size, Release release, void* owner, void* token)
      : data_(data), size_(size), release_(release), owner_(owner), token_(token) {}
  FrameBuffer(FrameBuffer&& other) noexcept { *this = std::move(other); }
  FrameBuffer& operator=(FrameBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
    std::swap(owner_, other.owner_);
    std::swap(token_, other.token_);
    return *this;
  }
  ~FrameBuffer() {
    if (release_ != nullptr) release_(owner_, token_);
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  absl::Span<const std::byte> bytes() const { return {data_, size_}; }
  // Shrinks what is sent; never grows.
  void Truncate(size_t size) { size_ = size < size_ ? size : size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Release release_ = nullptr;
  void* owner_ = nullptr;
  void* token_ = nullptr;
};

// What an end can speak; the two ends of a pair tell each other before an endpoint is opened.
struct TransportOffer {
  std::vector<std::string> kinds;  // "loopback", "shm", "tcp", "ucx" (a list of the site's own)
  std::string host;                // equal in two processes that can share memory, different else
};

// The kinds that both ends speak, in the order of `ours` (best first). Shared memory is common
// only to ends of one host.
std::vector<std::string> CommonKinds(const TransportOffer& ours, const TransportOffer& theirs);

// Of one kind, for metrics and status.
struct TransportKindStats {
  std::string kind;
  size_t connecting = 0;  // endpoints that are not up yet
  size_t up = 0;
  uint64_t bytes_sent = 0;  // of frames posted
  uint64_t bytes_received = 0;
};

// Moves registered bytes between an attention worker and an expert worker: frames of at most
// limits::kFrameBytesMax, in order per endpoint while it is up, without acknowledgement. What a
// frame means is the exchange's business. All calls and callbacks are on the loop's thread;
// callbacks never run inside a call.
//
// An endpoint is for one peer only, at both ends, and shares nothing with others: Open makes it and
// its address, which only that peer may use; Connect gives it the peer's. It is up once both ends
// are connected and have heard of each other; over a network, one that is not by the transport's
// own deadline goes down.
//
// Implementations: loopback (same process, and the fabric's faults), ucx (shared memory, TCP,
// RDMA).
class Transport {
 public:
  struct Events {
    // A frame came from somebody who knows an address of ours; 64-byte aligned. Who it is from is
    // in the frame; nothing about it has been checked.
    std::function<void(FrameBuffer frame)> on_frame;
    // Frames get through, both ways. At most once an endpoint.
    std::function<void(EndpointId endpoint)> on_up;
    // The endpoint is lost, and with it every posted frame not yet delivered; it is closed. At most
    // once an endpoint.
    std::function<void(EndpointId endpoint, absl::Status why)> on_down;
  };

  virtual ~Transport() = default;

  // Must be set before the first frame can arrive. Any event may be left out.
  virtual void SetEvents(Events events) = 0;
  virtual TransportOffer offer() const = 0;
  // An endpoint of one of the offered kinds; InvalidArgument for another one.
  virtual absl::StatusOr<EndpointId> Open(const std::string& kind) = 0;
  // Opaque bytes that the peer's Connect takes. The endpoint must be open.
  virtual std::string address(EndpointId endpoint) const = 0;
  // Once an endpoint. After an error the endpoint is good for Close only.
  virtual absl::Status Connect(EndpointId endpoint, const std::string& peer_address) = 0;
  // Memory for a frame of `bytes`; ResourceExhausted when the registered pool is empty.
  virtual absl::StatusOr<FrameBuffer> Lease(size_t bytes) = 0;
  // Sends frame.size() bytes over a connected endpoint; the buffer goes back to the pool when the
  // transport is done with it. Unavailable if the endpoint is not connected or is down.
  virtual absl::Status Post(EndpointId endpoint, FrameBuffer frame) = 0;
  // Drops what is unsent; no event follows. Unknown endpoints are ignored.
  virtual void Close(EndpointId endpoint) = 0;
  // One a kind offered.
  virtual std::vector<TransportKindStats> stats() const = 0;
};

}  // namespace bottega
