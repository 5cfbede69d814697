#include "attention-worker/block_allocator.h"

#include <numeric>

#include "core/base/check.h"

namespace bottega {

BlockAllocator::BlockAllocator(int32_t blocks) : total_(blocks), free_(blocks) {
  std::iota(free_.rbegin(), free_.rend(), 0);  // the first taken is block 0
}

std::optional<int32_t> BlockAllocator::Take() {
  if (free_.empty()) return std::nullopt;
  const int32_t block = free_.back();
  free_.pop_back();
  return block;
}

void BlockAllocator::Return(int32_t block) {
  CHECK(block >= 0 && block < total_);
  CHECK_LT(free(), total_);
  free_.push_back(block);
}

}  // namespace bottega
