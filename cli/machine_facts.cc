#include "cli/machine_facts.h"

#include <cstdlib>
#include <fstream>
#include <string_view>

namespace bottega {
namespace {

// What follows `key` and a colon on the first line that begins with it.
std::string ValueOf(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

}  // namespace

std::string ProcessorName() {
  const std::string name = ValueOf("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown" : name;
}

uint64_t ProportionalSetBytes() {
  return std::strtoull(ValueOf("/proc/self/smaps_rollup", "Pss:").c_str(), nullptr, 10) << 10;
}

}  // namespace bottega
