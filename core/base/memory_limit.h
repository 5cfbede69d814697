#pragma once

#include <cstdint>
#include <string>

namespace bottega {

struct MemoryLimit {
  uint64_t bytes = 0;  // what this process may use: the machine's memory or its cgroup's limit
  uint64_t machine_bytes = 0;
  bool from_cgroup = false;  // the cgroup's limit is the smaller
};

// Reads /proc/meminfo and the memory limits of the process' cgroup and of every cgroup above it, v1
// and v2. `root` stands before every path, for tests. A file that is absent or unreadable limits
// nothing; bytes is 0 only if nothing at all is known.
MemoryLimit ReadMemoryLimit(const std::string& root = "");

}  // namespace bottega
