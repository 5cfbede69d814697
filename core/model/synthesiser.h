#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "core/tensor/weight_format.h"

namespace bottega {

struct SynthesisOptions {
  WeightFormat weights = WeightFormat::kBF16;
  uint64_t seed = 1;
  int threads = 0;  // 0: as many as the machine has, at most 8
  // Called from any thread, one call at a time, with bytes done of all.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Writes a model of random weights (random_region.h) and a tokenizer that knows no language
// (synthetic_text.h) into the new directory `out`, packed: for measuring a shape whose weights one
// has not. Equal (config_json, weights, seed) give equal bytes.
//
// All or nothing, and the space is checked and reserved first, as in PackModel; after an error
// nothing is left. `out` must not exist. A tied head is refused.
absl::Status SynthesiseModel(const std::string& config_json, const std::filesystem::path& out,
                             const SynthesisOptions& options);

}  // namespace bottega
