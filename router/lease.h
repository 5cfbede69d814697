#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/loop.h"

namespace bottega {

// Which of several routers writes the table. Two processes never hold it at once as far as clocks
// of one rate can tell; where they cannot (a process that stood still in the middle of a write),
// the term tells: members take nothing from a lower one. Loop thread only.
class Lease {
 public:
  virtual ~Lease() = default;
  // Tries to hold the lease: the new term, above all earlier ones and above `above`; nothing while
  // another process holds it. An error: it could not be asked.
  virtual Task<absl::StatusOr<std::optional<uint64_t>>> TryAcquire(uint64_t above) = 0;
  // Holds it for another ttl from the moment of the call. Aborted: another process has it; another
  // error: it could not be asked.
  virtual Task<absl::Status> Renew() = 0;
  // Another process may hold it at once.
  virtual Task<void> Release() = 0;
};

// Above what was stored and what members use. The wall clock too, so that a store that was lost
// does not begin again below the tables in use.
uint64_t NextTerm(uint64_t stored, uint64_t above);

// Of a router that is alone: held by asking. `term` 0: by NextTerm; else the first term (tests).
std::unique_ptr<Lease> SoleLease(uint64_t term = 0);

// "none"; "file:PATH", for routers of one host; "etcd:http://HOST:PORT/KEY". InvalidArgument for
// anything else; the store's own error if it cannot be opened. `name` is shown to who looks into
// the store.
absl::StatusOr<std::unique_ptr<Lease>> OpenLease(Loop& loop, std::string_view what, Duration ttl,
                                                 std::string_view name);

}  // namespace bottega
