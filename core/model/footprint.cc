#include "core/model/footprint.h"

#include "core/kernels/attention.h"
#include "core/model/packed_format.h"

namespace bottega {

std::optional<uint64_t> PackedBytesOf(const ModelConfig& config, WeightFormat weights) {
  if (!CheckWeightFormat(config, weights).ok()) return std::nullopt;
  uint64_t bytes = 0;
  for (const Region& region : PlanRegions(config, weights)) {
    bytes += RoundUp(region.bytes, kRegionAlignment);
  }
  return bytes;
}

uint64_t KvBytesPerToken(const ModelConfig& config, DType row_type) {
  return 2 * static_cast<uint64_t>(config.num_layers) * static_cast<uint64_t>(config.kv_dim()) *
         SizeOf(row_type);
}

uint64_t KvBytesOfSequence(const ModelConfig& config, DType row_type, int64_t positions) {
  return RoundUp(static_cast<uint64_t>(positions), kKvBlockPositions) *
         KvBytesPerToken(config, row_type);
}

}  // namespace bottega
