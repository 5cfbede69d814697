#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>

#include "absl/status/statusor.h"
#include "bench/accuracy/block_format.h"
#include "core/model/checkpoint_reader.h"
#include "core/tensor/weight_format.h"
#include "tests/golden/logits_golden.h"

namespace bottega {

// How far logits are from the reference's, over some positions.
struct Loss {
  size_t positions = 0, same_first = 0, logits = 0;
  double largest = 0, sum = 0;  // of |delta logit|
  double divergence = 0;        // sum of nats

  void Add(const float* theirs, const float* ours, size_t vocab);
  void Add(const Loss& other);
  double mean_divergence() const { return divergence / static_cast<double>(positions); }
  double mean_delta() const { return sum / static_cast<double>(logits); }
};

struct ModelLoss {
  Loss everywhere;
  Loss taught;  // where the assistant writes
  // Everywhere, with the experts that the reference chose: a close choice that falls the other way
  // outweighs a thousand positions, so this is the steadier measure of rounding.
  Loss given;

  void Add(const ModelLoss& other) {
    everywhere.Add(other.everywhere);
    taught.Add(other.taught);
    given.Add(other.given);
  }
};

// The engine itself: the checkpoint of `dir` packed in `format`, rows in bf16 as it is served.
absl::StatusOr<ModelLoss> EngineLoss(const LogitsGolden& golden, const std::filesystem::path& dir,
                                     WeightFormat format);

// The reference graph in f32 on rounded weights, its inputs rounded too.
absl::StatusOr<ModelLoss> EmulatedLoss(const LogitsGolden& golden, const Checkpoint& checkpoint,
                                       const BlockFormat& format);

// The reference graph as it is.
absl::StatusOr<ModelLoss> ReferenceLoss(const LogitsGolden& golden, const Checkpoint& checkpoint);

}  // namespace bottega
