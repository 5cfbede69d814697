#pragma once

#include <cstdint>
#include <optional>

#include "core/model/config.h"
#include "core/tensor/dtype.h"

namespace bottega {

// Bytes of a packed directory's weights, f32 and bf16: exact, padding included.
uint64_t PackedBytesOf(const ModelConfig& config, DType weights);

// The same for int8 and int4, from the numerics contract: matrices in groups along K with a scale
// each (int8: f32, a group is the largest multiple of 8 up to 128 that divides K; int4: f16, the
// largest multiple of 8 up to 40 that divides that), rows padded to tiles of 16; embedding bf16,
// router and norms f32. Absent: some K is no multiple of 8.
std::optional<uint64_t> QuantisedBytesOf(const ModelConfig& config, int bits);

// K and V of one position in all layers.
uint64_t KvBytesPerToken(const ModelConfig& config, DType row_type);

}  // namespace bottega
