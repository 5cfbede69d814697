#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace bottega {

// Hands out the KV pool's blocks by number, the last returned first, so that a small working set
// stays warm. Loop thread only.
class BlockAllocator {
 public:
  explicit BlockAllocator(int32_t blocks);

  std::optional<int32_t> Take();
  void Return(int32_t block);
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t total() const { return total_; }

 private:
  int32_t total_;
  std::vector<int32_t> free_;
};

}  // namespace bottega
