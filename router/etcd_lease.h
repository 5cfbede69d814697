#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "router/lease.h"

namespace bottega {

// A lease in etcd, by the JSON gateway of its v3 API: KEY exists while somebody holds it (bound to
// an etcd lease of `ttl`, at least 2 s), KEY/term keeps the last term for ever. `url` is
// http://HOST:PORT/KEY. Requests run on a thread of their own, each bounded by a fifth of the ttl.
absl::StatusOr<std::unique_ptr<Lease>> OpenEtcdLease(Loop& loop, std::string_view url, Duration ttl,
                                                     std::string_view name);

}  // namespace bottega
