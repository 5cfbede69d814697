#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/checkpoint_reader.h"

namespace bottega {

// The forward pass, written to be read: no cache, no batch, no packing, one matrix at a time from
// the checkpoint, every position at once. It is what the engine is compared with where no other
// program's answer is at hand, and itself is compared with transformers' (tests/golden). Nothing
// serves from it.

// [layer][position] -> chosen expert ids, ascending; a dense layer's entry is empty.
using ExpertChoices = std::vector<std::vector<std::vector<int>>>;

struct ReferenceOptions {
  bool accumulate_in_double = false;  // sums of products in double, rounded to f32 at their end
  const ExpertChoices* forced =
      nullptr;  // use these experts; their weights still come from the router
  // Changes each row that meets a matrix, the router's apart: what a format that rounds its inputs
  // would multiply. bench/accuracy compares formats that way.
  std::function<void(std::span<float> row)> round_inputs;
};

struct ReferenceOutput {
  std::vector<float> logits;  // [positions, vocab]
  ExpertChoices choices;
};

absl::StatusOr<ReferenceOutput> RunReferenceGraph(const Checkpoint& checkpoint,
                                                  std::span<const int32_t> ids,
                                                  const ReferenceOptions& options = {});

}  // namespace bottega
