#pragma once

#include <cstdint>
#include <optional>

#include "core/model/config.h"
#include "core/tensor/dtype.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// Bytes of a packed directory's weights: exact, padding included. Absent: the model cannot be
// stored so (CheckWeightFormat).
std::optional<uint64_t> PackedBytesOf(const ModelConfig& config, WeightFormat weights);

// Memory besides weights and KV that one process needs: code, buffers, allocator.
inline constexpr uint64_t kWorkingBytes = 512u << 20;

// K and V of one position in all layers.
uint64_t KvBytesPerToken(const ModelConfig& config, DType row_type);
// Of a sequence of so many positions, which takes whole blocks.
uint64_t KvBytesOfSequence(const ModelConfig& config, DType row_type, int64_t positions);

}  // namespace bottega
