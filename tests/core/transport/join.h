#pragma once

#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "core/base/status.h"
#include "core/transport/transport.h"

namespace bottega {

// A new connection between two transports: its end at `a` and its end at `b`. They come up as the
// loop runs.
inline absl::StatusOr<std::pair<EndpointId, EndpointId>> Join(Transport& a, Transport& b) {
  const std::string kind = a.offer().kinds.front();
  ASSIGN_OR_RETURN(const EndpointId at_a, a.Open(kind));
  ASSIGN_OR_RETURN(const EndpointId at_b, b.Open(kind));
  RETURN_IF_ERROR(a.Connect(at_a, b.address(at_b)));
  RETURN_IF_ERROR(b.Connect(at_b, a.address(at_a)));
  return std::pair(at_a, at_b);
}

}  // namespace bottega
