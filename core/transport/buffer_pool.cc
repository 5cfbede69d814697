#include "core/transport/buffer_pool.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "fmt/format.h"

namespace bottega {
namespace {
constexpr int kSmallestShift = 12;  // 4 KiB
constexpr int kClasses = 16;
static_assert((size_t{1} << (kSmallestShift + kClasses - 1)) >= limits::kFrameBytesMax);

int ClassOf(size_t bytes) {
  const int shift = std::bit_width(bytes == 0 ? 0 : bytes - 1);
  return shift <= kSmallestShift ? 0 : shift - kSmallestShift;
}
}  // namespace

struct BufferPool::Buffer {
  AlignedBuffer memory;
  int size_class;
};

struct BufferPool::State {
  size_t bytes_max = 0;
  size_t bytes = 0;  // allocated, free or leased
  size_t leased = 0;
  bool orphaned = false;
  bool poison = false;
  std::array<std::vector<std::unique_ptr<Buffer>>, kClasses> free;

  // A pool full of free buffers of the wrong size is not exhausted.
  void DropFree() {
    for (auto& list : free) {
      for (const auto& buffer : list) bytes -= buffer->memory.size();
      list.clear();
    }
  }
};

BufferPool::BufferPool(size_t bytes_max) : state_(new State{.bytes_max = bytes_max, .free = {}}) {}

BufferPool::~BufferPool() {
  state_->orphaned = true;
  if (state_->leased == 0) delete state_;
}

void BufferPool::set_poison(bool poison) { state_->poison = poison; }

size_t BufferPool::leased() const { return state_->leased; }

absl::StatusOr<FrameBuffer> BufferPool::Lease(size_t bytes) {
  if (bytes > limits::kFrameBytesMax) {
    return absl::InvalidArgumentError(fmt::format("a frame of {} bytes is past kFrameBytesMax = {}",
                                                  bytes, limits::kFrameBytesMax));
  }
  const int size_class = ClassOf(bytes);
  auto& list = state_->free[size_class];
  std::unique_ptr<Buffer> buffer;
  if (!list.empty()) {
    buffer = std::move(list.back());
    list.pop_back();
  } else {
    const size_t capacity = size_t{1} << (kSmallestShift + size_class);
    if (state_->bytes + capacity > state_->bytes_max) state_->DropFree();
    if (state_->bytes + capacity > state_->bytes_max) {
      return absl::ResourceExhaustedError(
          fmt::format("frame memory: {} of {} bytes are leased, {} more wanted", state_->bytes,
                      state_->bytes_max, capacity));
    }
    state_->bytes += capacity;
    buffer = std::make_unique<Buffer>(Buffer{AlignedBuffer(capacity), size_class});
  }
  ++state_->leased;
  std::byte* data = buffer->memory.data();
  return FrameBuffer(data, bytes, &BufferPool::GiveBack, state_, buffer.release());
}

void BufferPool::GiveBack(void* owner, void* token) {
  State* state = static_cast<State*>(owner);
  std::unique_ptr<Buffer> buffer(static_cast<Buffer*>(token));
  CHECK(state->leased > 0);
  --state->leased;
  if (state->poison) std::memset(buffer->memory.data(), 0xff, buffer->memory.size());
  if (!state->orphaned) {
    state->free[buffer->size_class].push_back(std::move(buffer));
  } else if (state->leased == 0) {
    delete state;
  }
}

}  // namespace bottega
