#pragma once

#include <cstdint>
#include <cstdio>
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

 private:
  explicit HashTrace(std::FILE* file) : file_(file) {}
  std::FILE* file_;
};

}  // namespace bottega
