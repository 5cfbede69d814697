#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

// Names of stages as small numbers, the same in both traces of a comparison. What a worker writes
// comes first, in order of computation; others follow as they are met.
class StageNames {
 public:
  // Number of `name`; -1 when there are too many or the name is too long.
  int Intern(std::string_view name);
  const std::string& Name(int number) const { return names_[static_cast<size_t>(number)]; }

 private:
  std::vector<std::string> names_ = {"embed", "attend", "ffn"};
};

// Where in a sequence's computation a row was hashed. Ordered as it is computed: positions, in each
// the embedding, the layers, in each its stages; at last what comes after the layers.
class TracePlace {
 public:
  TracePlace() = default;
  TracePlace(int32_t position, int32_t layer, int stage);

  int32_t position() const { return static_cast<int32_t>(bits_ >> 32); }
  int32_t layer() const;  // -1: outside the layers
  int stage() const { return static_cast<int>(bits_ & 0xff); }
  auto operator<=>(const TracePlace&) const = default;

 private:
  uint64_t bits_ = 0;  // position << 32 | layer's rank << 8 | stage
};

struct TraceEntry {
  uint64_t sequence = 0;
  TracePlace place;
  uint32_t hash = 0;
  auto operator<=>(const TraceEntry&) const = default;
};

struct Trace {
  // Ascending, each once: a row that was computed twice with one result is one entry.
  std::vector<TraceEntry> entries;
  uint64_t repeated = 0;  // lines that said what an earlier one had said
  bool cut_off = false;   // the last line has no end (the writer was killed): not counted
};

// Reads a whole trace: 24 bytes of memory a line, whatever the order of lines. Errors name file and
// line.
absl::StatusOr<Trace> ReadTrace(const std::string& path, StageNames& stages);

}  // namespace bottega
