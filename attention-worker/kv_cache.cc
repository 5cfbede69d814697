#include "attention-worker/kv_cache.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

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

KvLayer KvCache::layer(int index) const {
  return {.base = data_ + layout_.BlockBytes() * static_cast<size_t>(index),
          .block_stride_bytes = layout_.BlockBytes() * static_cast<size_t>(layers_),
          .layout = layout_};
}

}  // namespace bottega
