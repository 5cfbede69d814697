#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/model/packed_format.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// Writes random weights as a region into the file `fd` at region.offset; the bytes are a function
// of (region, weights, seed). Any thread; regions are independent.
//
// Deviations, for inputs of mean square 1: an embedding of 1, and matrices of 1 / sqrt(k) but for
// those that end in the residual stream, o_proj and down_proj, which are smaller. So a token's own
// embedding stays the larger part of its residual through all layers, and tokens differ in which
// experts they choose; were it the smaller, what the layers add, alike for all tokens, would choose
// the same experts for all of them. Norms are 1.
absl::StatusOr<RegionSums> WriteRandomRegion(const Region& region, WeightFormat weights,
                                             uint64_t seed, int fd);

}  // namespace bottega
