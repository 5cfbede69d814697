#pragma once

#include "absl/status/statusor.h"
#include "core/base/fault_point.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packed_format.h"

namespace bottega {

// Packs one region from `checkpoint` into the file `fd` at region.offset, in pieces of a few MiB. A
// NaN or infinity among the weights, or a value that what is stored cannot hold, is refused with
// its file's and tensor's name. Any thread; regions are independent. `faults`: RegionSink.
absl::StatusOr<RegionSums> WriteRegion(const Checkpoint& checkpoint, const Region& region,
                                       WeightFormat weights, int fd, FaultPoints* faults);

}  // namespace bottega
