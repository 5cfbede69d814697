#include "attention-worker/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/base/crc32c.h"
#include "core/base/reason.h"

namespace bottega {
namespace {

KvLayout LayoutOf(const ModelConfig& config, DType row_type) {
  return {.dtype = row_type, .kv_heads = config.num_kv_heads, .head_dim = config.head_dim};
}

}  // namespace

size_t KvCache::BlockBytes(const ModelConfig& config, DType row_type) {
  return LayoutOf(config, row_type).BlockBytes() * static_cast<size_t>(config.num_layers);
}

absl::Status KvCache::CheckMemory(uint64_t pool_bytes, uint64_t memory_bytes) {
  if (memory_bytes == 0 || pool_bytes <= memory_bytes) return absl::OkStatus();
  return MakeError(Reason::kInvalidValue,
                   fmt::format("a KV pool of {} MiB; this process may use {} MiB of memory. Give a "
                               "smaller --kv-cache",
                               pool_bytes >> 20, memory_bytes >> 20));
}

absl::StatusOr<KvCache> KvCache::Create(const ModelConfig& config, DType row_type, int32_t blocks) {
  const size_t bytes = BlockBytes(config, row_type) * static_cast<size_t>(blocks);
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return MakeError(Reason::kInternalError, fmt::format("cannot reserve {} bytes of KV cache: {}",
                                                         bytes, strerror(errno)));
  }
  return KvCache(static_cast<std::byte*>(data), bytes, blocks, LayoutOf(config, row_type),
                 config.num_layers);
}

KvCache::KvCache(KvCache&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(other.bytes_),
      blocks_(other.blocks_),
      layout_(other.layout_),
      layers_(other.layers_) {}

KvCache& KvCache::operator=(KvCache&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  blocks_ = other.blocks_;
  layout_ = other.layout_;
  layers_ = other.layers_;
  return *this;
}

KvCache::~KvCache() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void KvCache::Spoil(int32_t block) {
  const size_t bytes = layout_.BlockBytes() * static_cast<size_t>(layers_);
  std::memset(data_ + bytes * static_cast<size_t>(block), 0xff, bytes);
}

uint32_t KvCache::Crc(int layer, int32_t block, int32_t offset) const {
  const KvLayer of = this->layer(layer);
  const std::byte* keys = of.base + of.block_stride_bytes * static_cast<size_t>(block);
  const std::byte* values = keys + layout_.KeyBytes();
  const size_t width = SizeOf(layout_.dtype);
  const auto head_dim = static_cast<size_t>(layout_.head_dim);
  uint32_t crc = 0;
  for (size_t i = 0; i < layout_.kv_heads * head_dim; ++i) {
    crc = ExtendCrc32c(crc, keys + (i * kKvBlockPositions + offset) * width, width);
  }
  for (int64_t head = 0; head < layout_.kv_heads; ++head) {
    const size_t row = static_cast<size_t>(head * kKvBlockPositions + offset);
    crc = ExtendCrc32c(crc, values + row * head_dim * width, head_dim * width);
  }
  return crc;
}

KvLayer KvCache::layer(int index) const {
  return {.base = data_ + layout_.BlockBytes() * static_cast<size_t>(index),
          .block_stride_bytes = layout_.BlockBytes() * static_cast<size_t>(layers_),
          .layout = layout_};
}

}  // namespace bottega
