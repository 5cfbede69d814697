#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/tensor/aligned_buffer.h"
#include "core/transport/transport.h"

namespace bottega {

// Frame memory of a transport: buffers in powers of two from 4 KiB, kept when given back, at most
// `bytes_max` in all. A frame handed to another transport may outlive the one it was leased from:
// the memory lives until the last buffer is back. Loop thread only.
class BufferPool {
 public:
  explicit BufferPool(size_t bytes_max);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // 64-byte aligned, not cleared. ResourceExhausted past bytes_max, InvalidArgument past
  // limits::kFrameBytesMax.
  absl::StatusOr<FrameBuffer> Lease(size_t bytes);

  size_t leased() const;  // buffers out
  // Tests: buffers given back are filled with 0xFF, so that a late reader reads NaN.
  void set_poison(bool poison);

 private:
  struct State;
  struct Buffer;
  static void GiveBack(void* owner, void* token);

  State* state_;  // owned; outlives the pool while buffers are out
};

}  // namespace bottega
