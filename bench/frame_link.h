#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/types/span.h"

namespace bottega {

inline constexpr size_t kRowBytes = 5'760;  // EngGPT2's 2,880 values of bf16
inline constexpr size_t kMessageSizes[] = {kRowBytes, 8 * kRowBytes, 64 * kRowBytes};
inline constexpr size_t kMessageBytesMax = 64 * kRowBytes;

// One end of a pair of processes that carry frames; what is measured is the same code over each.
// Both ends copy rows into frame memory of the link and get frames in one piece of memory, for that
// is what the exchange's gather and kernels need.
class FrameLink {
 public:
  using OnFrame = std::function<void(absl::Span<const std::byte> frame)>;
  virtual ~FrameLink() = default;

  // Inside `start` and `on_frame` only. Never blocks: what does not fit the wire yet is queued.
  virtual void Send(absl::Span<const std::byte> frame) = 0;
  // Longer messages go as several frames.
  virtual size_t frame_bytes_max() const = 0;
  // Calls `start`, then `on_frame` for what arrives, never two at a time, until Stop() or the peer
  // is lost.
  virtual void Run(std::function<void()> start, OnFrame on_frame) = 0;
  virtual void Stop() = 0;  // inside `on_frame`
};

// The far end: sends echoes back, acknowledges streams.
void Respond(FrameLink& link, absl::Span<const std::byte> frame);

// `messages` of `bytes` one way, at most kWindow of them unacknowledged: GB/s until the last one is
// acknowledged. `messages` is rounded up to whole acknowledgements.
double StreamRate(FrameLink& link, size_t bytes, size_t messages);

// Appends the times of `rounds` round trips in microseconds.
void RoundTrips(FrameLink& link, size_t bytes, int rounds, std::vector<double>* times);

}  // namespace bottega
