#include "core/tensor/aligned_buffer.h"

#include <cstring>
#include <new>

namespace bottega {

AlignedBuffer::AlignedBuffer(size_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  data_.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t(kAlignment))));
  std::memset(data_.get(), 0, bytes);
}

void AlignedBuffer::Free::operator()(std::byte* data) const {
  ::operator delete[](data, std::align_val_t(kAlignment));
}

std::byte* Arena::TakeBytes(size_t bytes) {
  const size_t cost = Cost<std::byte>(bytes);
  CHECK_LE(cost, buffer_.size() - used_);
  std::byte* piece = buffer_.data() + used_;
  used_ += cost;
  return piece;
}

}  // namespace bottega
