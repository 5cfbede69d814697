#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "core/base/fault_point.h"
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

// Where a region's bytes go, first to last: into the file `fd` at region.offset, and into its sums.
// The region outlives it, and `faults`, if there are any: file.write is a write that finds the disk
// full.
class RegionSink {
 public:
  RegionSink(const Region& region, int fd, FaultPoints* faults = nullptr)
      : region_(region), fd_(fd), faults_(faults), sums_(region.name) {}

  // Calls write(section), which Writes exactly the section's bytes, for each of them; gaps are
  // filled with zeros.
  absl::StatusOr<RegionSums> WriteSections(absl::FunctionRef<absl::Status(const Section&)> write);
  absl::Status Write(std::span<const std::byte> bytes);

 private:
  // pwrite(2), or what a fault point makes of it.
  ssize_t Put(std::span<const std::byte> bytes, uint64_t offset) const;

  const Region& region_;
  const int fd_;
  FaultPoints* const faults_;
  uint64_t at_ = 0;  // in the region
  RegionSummer sums_;
};

}  // namespace bottega
