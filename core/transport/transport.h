#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

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

// Moves registered bytes between an attention worker and an expert worker: frames of at most
// limits::kFrameBytesMax, in order per endpoint while it is up, without acknowledgement. What a
// frame means is the exchange's business. All calls and callbacks are on the loop's thread;
// callbacks never run inside Connect or Post.
//
// Implementations: loopback (same process, and the fabric's faults), ucx (TCP, RDMA, shared
// memory).
class Transport {
 public:
  struct Events {
    // A frame came from somebody who knows our address; 64-byte aligned. Who it is from is in the
    // frame; nothing about it has been checked.
    std::function<void(FrameBuffer frame)> on_frame;
    // The endpoint is lost, and with it every posted frame not yet delivered. At most once an
    // endpoint.
    std::function<void(EndpointId endpoint, absl::Status why)> on_down;
  };

  virtual ~Transport() = default;

  // Must be set before the first frame can arrive.
  virtual void SetEvents(Events events) = 0;
  // The name that metrics and status show: "loopback", "tcp", "shm".
  virtual std::string name() const = 0;
  // Opaque bytes that a peer's Connect takes.
  virtual std::string address() const = 0;
  virtual absl::StatusOr<EndpointId> Connect(const std::string& address) = 0;
  // Memory for a frame of `bytes`; ResourceExhausted when the registered pool is empty.
  virtual absl::StatusOr<FrameBuffer> Lease(size_t bytes) = 0;
  // Sends frame.size() bytes; the buffer goes back to the pool when the transport is done with it.
  virtual absl::Status Post(EndpointId endpoint, FrameBuffer frame) = 0;
  // Drops what is unsent; no event follows. Unknown endpoints are ignored.
  virtual void Close(EndpointId endpoint) = 0;
};

}  // namespace bottega
