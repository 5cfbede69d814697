#include "core/model/region_sink.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {

// The name's closing 0 is part of the sums.
RegionSummer::RegionSummer(const std::string& region_name)
    : crc_(Crc32c(region_name.c_str(), region_name.size() + 1)) {
  sha_.Update(region_name.c_str(), region_name.size() + 1);
}

void RegionSummer::Update(std::span<const std::byte> bytes) {
  crc_ = ExtendCrc32c(crc_, bytes.data(), bytes.size());
  sha_.Update(bytes.data(), bytes.size());
}

absl::StatusOr<RegionSums> RegionSink::WriteSections(
    absl::FunctionRef<absl::Status(const Section&)> write) {
  for (const Section& section : region_.sections) {
    RETURN_IF_ERROR(Write(std::vector<std::byte>(section.offset - at_)));
    RETURN_IF_ERROR(write(section));
    CHECK_EQ(at_, section.offset + section.bytes);
  }
  return sums_.Finish();
}

ssize_t RegionSink::Put(std::span<const std::byte> bytes, uint64_t offset) const {
  if (faults_ != nullptr && !FAULT_POINT(*faults_, "file.write").ok()) {
    errno = ENOSPC;
    return -1;
  }
  return ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
}

absl::Status RegionSink::Write(std::span<const std::byte> bytes) {
  sums_.Update(bytes);
  uint64_t offset = region_.offset + at_;
  at_ += bytes.size();
  while (!bytes.empty()) {
    ssize_t put = Put(bytes, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      return MakeError(Reason::kInternalError, "cannot write " + region_.file + ": " +
                                                   std::strerror(put < 0 ? errno : ENOSPC));
    }
    offset += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
  return absl::OkStatus();
}

}  // namespace bottega
