#include "attention-worker/hash_trace.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "core/base/crc32c.h"
#include "core/base/reason.h"

namespace bottega {
namespace {

std::string Line(uint64_t sequence, int32_t position, int layer, std::string_view stage,
                 const void* row, size_t bytes) {
  const uint32_t hash = Crc32c({static_cast<const std::byte*>(row), bytes});
  return fmt::format("{:016x} {} {} {} {:08x}\n", sequence, position, layer, stage, hash);
}

}  // namespace

absl::StatusOr<std::unique_ptr<HashTrace>> HashTrace::Open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    return MakeError(Reason::kInvalidValue,
                     fmt::format("--hash-trace {}: {}", path, std::strerror(errno)), "hash-trace");
  }
  return std::unique_ptr<HashTrace>(new HashTrace(file));
}

HashTrace::~HashTrace() { std::fclose(file_); }

void HashTrace::Write(uint64_t sequence, int32_t position, int layer, std::string_view stage,
                      const void* row, size_t bytes) {
  std::fputs(Line(sequence, position, layer, stage, row, bytes).c_str(), file_);
}

void HashTrace::WriteIfKept(int32_t token, uint64_t sequence, int32_t position, int layer,
                            std::string_view stage, const void* row, size_t bytes) {
  kept_back_.emplace(token, Line(sequence, position, layer, stage, row, bytes));
}

void HashTrace::Keep(int32_t token) {
  const auto [begin, end] = kept_back_.equal_range(token);
  for (auto line = begin; line != end; ++line) std::fputs(line->second.c_str(), file_);
}

}  // namespace bottega
