#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace bottega {

// --hash-trace: one line per (sequence, position, layer, stage) with a hash of that token's row, so
// that `bottega diff A B` can name the first stage at which two runs part. A sequence is named by a
// hash of its prompt and sampling, which is the same in every run.
//
//   SEQUENCE POSITION LAYER STAGE HASH      layer -1: outside the layers
class HashTrace {
 public:
  static absl::StatusOr<std::unique_ptr<HashTrace>> Open(const std::string& path);
  ~HashTrace();

  void Write(uint64_t sequence, int32_t position, int layer, std::string_view stage,
             const void* row, size_t bytes);
  // The same of a token that was guessed, by its place in the batch: kept back until it is known
  // that it belongs to the sequence. A step's begin forgets what was not.
  void WriteIfKept(int32_t token, uint64_t sequence, int32_t position, int layer,
                   std::string_view stage, const void* row, size_t bytes);
  void Keep(int32_t token);
  void BeginStep() { kept_back_.clear(); }

 private:
  explicit HashTrace(std::FILE* file) : file_(file) {}
  std::FILE* file_;
  std::multimap<int32_t, std::string> kept_back_;  // token of the batch → a line
};

}  // namespace bottega
