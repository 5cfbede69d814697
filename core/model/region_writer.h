#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packed_format.h"
#include "core/model/sha256.h"

namespace bottega {

// The sums of a region: begun with its name, fed with its bytes in order.
class RegionSummer {
 public:
  explicit RegionSummer(const std::string& region_name);
  void Update(std::span<const std::byte> bytes);
  RegionSums Finish() { return {crc_, sha_.Hex()}; }

 private:
  uint32_t crc_;
  Sha256 sha_;
};

// Packs one region from `checkpoint` into the file `fd` at region.offset, in pieces of a few MiB. A
// NaN or infinity among the weights, or an f32 that bf16 cannot hold, is refused with its tensor's
// name. Any thread; regions are independent.
absl::StatusOr<RegionSums> WriteRegion(const Checkpoint& checkpoint, const Region& region,
                                       WeightFormat weights, int fd);

}  // namespace bottega
