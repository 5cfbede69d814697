#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace bottega {

// Ports nobody listens on at this moment, all different. Known beforehand, because a process that
// is restarted must come back where the others look for it. Not of those that the kernel gives to
// connections and to who listens at port 0 (unless it gives nearly all): else another process of
// the cluster may have it before the one it is for.
class LocalPorts {
 public:
  ~LocalPorts() { Release(); }
  absl::StatusOr<int> Take();
  // From here on the processes that were told of them may listen there.
  void Release();

 private:
  std::vector<int> held_;
};

// A port asked for by number must be free now: better said here than by a child that keeps dying.
absl::Status CheckFree(const std::string& host, int64_t port);

// What GET /ready answers. Loopback and tiny: asked from the loop, with a short timeout.
struct Readiness {
  bool ready = false;   // 200
  double progress = 0;  // of its load, 0 to 1; 0 where nobody answers
};
Readiness AskReady(const std::string& host, int port);
Readiness AskReady(const std::string& address);  // host:port

}  // namespace bottega
