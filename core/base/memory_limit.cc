#include "core/base/memory_limit.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace bottega {
namespace {

constexpr uint64_t kNone = UINT64_MAX;

// "max", an absent file and v1's "no limit" (a page-rounded 2^63) all come out as past any machine.
uint64_t ReadLimit(const std::string& path) {
  std::ifstream file(path);
  uint64_t bytes = 0;
  return file >> bytes && bytes > 0 ? bytes : kNone;
}

// The smallest limit of `group` and the groups above it. Inside a container the path may not exist
// below the mount, but the mount's own root then is the container's group.
uint64_t SmallestAbove(const std::string& mount, std::string group, const std::string& file) {
  uint64_t smallest = ReadLimit(mount + "/" + file);
  while (!group.empty() && group != "/") {
    smallest = std::min(smallest, ReadLimit(mount + group + "/" + file));
    group.resize(group.find_last_of('/'));
  }
  return smallest;
}

uint64_t CgroupLimit(const std::string& root) {
  uint64_t smallest = kNone;
  std::ifstream groups(root + "/proc/self/cgroup");
  // Lines are id:controllers:path; v2 has one line, 0::path.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos || line[second + 1] != '/') continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      smallest = std::min(smallest, SmallestAbove(root + "/sys/fs/cgroup", path, "memory.max"));
      smallest =
          std::min(smallest, SmallestAbove(root + "/sys/fs/cgroup/unified", path, "memory.max"));
    } else if (controllers.find(",memory,") != std::string::npos) {
      smallest = std::min(
          smallest, SmallestAbove(root + "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"));
    }
  }
  return smallest;
}

uint64_t MachineBytes(const std::string& root) {
  std::ifstream info(root + "/proc/meminfo");
  for (std::string line; std::getline(info, line);) {
    std::istringstream fields(line);
    std::string name;
    uint64_t kib = 0;
    if (fields >> name >> kib && name == "MemTotal:") return kib << 10;
  }
  return 0;
}

}  // namespace

MemoryLimit ReadMemoryLimit(const std::string& root) {
  MemoryLimit limit;
  limit.machine_bytes = MachineBytes(root);
  limit.bytes = limit.machine_bytes;
  const uint64_t cgroup = CgroupLimit(root);
  if (cgroup != kNone && (limit.bytes == 0 || cgroup < limit.bytes)) {
    limit.bytes = cgroup;
    limit.from_cgroup = true;
  }
  return limit;
}

}  // namespace bottega
