#include "core/model/footprint.h"

#include <algorithm>

#include "core/kernels/matmul.h"
#include "core/model/packed_format.h"
#include "core/model/tensor_set.h"

namespace bottega {
namespace {

// The largest multiple of 8 up to `max` that divides k; 0 if there is none.
int64_t GroupSize(int64_t k, int64_t max) {
  for (int64_t group = std::min(max, k) / 8 * 8; group > 0; group -= 8) {
    if (k % group == 0) return group;
  }
  return 0;
}

}  // namespace

uint64_t PackedBytesOf(const ModelConfig& config, DType weights) {
  uint64_t bytes = 0;
  for (const Region& region : PlanRegions(config, weights)) {
    bytes += RoundUp(region.bytes, kRegionAlignment);
  }
  return bytes;
}

std::optional<uint64_t> QuantisedBytesOf(const ModelConfig& config, int bits) {
  int64_t bytes = 0;
  bool possible = true;
  auto add_matrix = [&](int64_t n, int64_t k) {
    const int64_t group8 = GroupSize(k, 128);
    if (group8 == 0) {
      possible = false;
      return;
    }
    const int64_t group = bits == 8 ? group8 : GroupSize(group8, 40);
    const int64_t scale_bytes = bits == 8 ? 4 : 2;
    bytes += RoundUpToTile(n) * (k * bits / 8 + k / group * scale_bytes);
  };
  for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
    const int64_t rows = tensor.shape.size() == 2 ? tensor.shape[0] : 1;
    const int64_t k = tensor.shape.back();
    const bool router = tensor.name.ends_with("mlp.gate.weight");
    if (tensor.name == tensor_name::kEmbedding) {
      bytes += rows * k * 2;
      if (config.tied_head) add_matrix(rows, k);
    } else if (rows == 1 || router) {
      bytes += rows * k * 4;
    } else {
      add_matrix(rows, k);
    }
  }
  if (!possible) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

uint64_t KvBytesPerToken(const ModelConfig& config, DType row_type) {
  return 2 * static_cast<uint64_t>(config.num_layers) * static_cast<uint64_t>(config.kv_dim()) *
         SizeOf(row_type);
}

}  // namespace bottega
