#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "core/kernels/attention.h"
#include "core/model/config.h"

namespace bottega {

// The pool's memory: `blocks` blocks of 16 positions, each with all layers side by side, so that a
// block is one run of bytes. Pages come from the system when first written. Movable.
class KvCache {
 public:
  static absl::StatusOr<KvCache> Create(const ModelConfig& config, DType row_type, int32_t blocks);
  // InvalidArgument for a pool that `memory_bytes` (0: not known) cannot hold. Create only
  // reserves: without this, the kernel would end the process once the pool has filled.
  static absl::Status CheckMemory(uint64_t pool_bytes, uint64_t memory_bytes);
  // Bytes of one block, all layers.
  static size_t BlockBytes(const ModelConfig& config, DType row_type);

  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache&& other) noexcept;
  ~KvCache();

  KvLayer layer(int index) const;
  // Sets every bit of a block: NaN, should anybody read it before it is written again.
  void Spoil(int32_t block);
  // CRC32C of all that is kept of one position in one layer.
  uint32_t Crc(int layer, int32_t block, int32_t offset) const;
  int32_t blocks() const { return blocks_; }

 private:
  KvCache(std::byte* data, size_t bytes, int32_t blocks, KvLayout layout, int layers)
      : data_(data), bytes_(bytes), blocks_(blocks), layout_(layout), layers_(layers) {}

  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  int32_t blocks_ = 0;
  KvLayout layout_;
  int layers_ = 0;
};

}  // namespace bottega
