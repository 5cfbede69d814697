#pragma once

#include "absl/status/statusor.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packed_format.h"

namespace bottega {

// Packs one region from `checkpoint` into the file `fd` at region.offset, in pieces of a few MiB. A
// NaN or infinity among the weights, or an f32 that bf16 cannot hold, is refused with its tensor's
// name. Any thread; regions are independent.
absl::StatusOr<RegionSums> WriteRegion(const Checkpoint& checkpoint, const Region& region,
                                       WeightFormat weights, int fd);

}  // namespace bottega
