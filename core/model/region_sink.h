#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
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
class RegionSink {
 public:
  RegionSink(const Region& region, int fd) : region_(region), fd_(fd), sums_(region.name) {}

  // The gap before the section.
  absl::Status Begin(const Section& section);
  absl::Status Write(std::span<const std::byte> bytes);
  // Whether exactly the section's bytes have come.
  bool IsAtEndOf(const Section& section) const { return at_ == section.offset + section.bytes; }
  RegionSums Finish() { return sums_.Finish(); }

 private:
  const Region& region_;
  const int fd_;
  uint64_t at_ = 0;  // in the region
  RegionSummer sums_;
};

}  // namespace bottega
