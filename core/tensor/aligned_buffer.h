#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "absl/types/span.h"
#include "core/base/check.h"

namespace bottega {

// Bytes that start on a cache line, zeroed, of a size fixed at construction: allocated at start and
// kept, so that a step allocates nothing. Movable, not copyable.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(size_t bytes);

  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

  // The buffer as elements of T; a remainder smaller than T is left out.
  template <class T>
  absl::Span<T> As() {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<T*>(data_.get()), size_ / sizeof(T)};
  }
  template <class T>
  absl::Span<const T> As() const {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<const T*>(data_.get()), size_ / sizeof(T)};
  }

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  size_t size_ = 0;
};

// Hands out cache-line-aligned pieces of one buffer; Reset takes all back at once. For the scratch
// of a step: sized at start, so running out is a programmer's error.
class Arena {
 public:
  explicit Arena(size_t bytes) : buffer_(bytes) {}

  template <class T>
  absl::Span<T> Take(size_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<T*>(TakeBytes(count * sizeof(T))), count};
  }
  void Reset() { used_ = 0; }
  size_t used() const { return used_; }
  size_t capacity() const { return buffer_.size(); }

  // Bytes that `count` elements take here, the alignment of the next piece included.
  template <class T>
  static constexpr size_t Cost(size_t count) {
    return (count * sizeof(T) + AlignedBuffer::kAlignment - 1) / AlignedBuffer::kAlignment *
           AlignedBuffer::kAlignment;
  }

 private:
  std::byte* TakeBytes(size_t bytes);

  AlignedBuffer buffer_;
  size_t used_ = 0;
};

}  // namespace bottega
