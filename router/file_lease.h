#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "router/lease.h"

namespace bottega {

// A lease in a file that all routers of one host open. Two signs end a tenure:
//   the kernel's lock on the file, which its holder keeps for as long as it lives: free means dead,
//   and the next writer follows at once;
//   the record's beat, which the holder moves at each Renew: a beat that stands for a ttl, by the
//   waiter's own clock, means that the holder stands still. No clocks are compared.
// The record (term, beat) is mapped and changed by compare-and-swap, so a process may be stopped
// anywhere in here without blocking another. Not for network file systems.
absl::StatusOr<std::unique_ptr<Lease>> OpenFileLease(Loop& loop, std::string_view path,
                                                     Duration ttl);

}  // namespace bottega
