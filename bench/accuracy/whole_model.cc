#include "bench/accuracy/whole_model.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "bench/accuracy/changed_checkpoint.h"
#include "core/base/status.h"
#include "core/model/packed_model.h"
#include "core/model/packer.h"
#include "core/model/reference_graph.h"
#include "tests/core/model/temp_dir.h"
#include "tests/golden/packed_graph.h"

namespace bottega {
namespace {

// Calls logits(sequence, experts), [positions, vocab], for every sequence with its own choice of
// experts (null) and with the reference's.
template <class Logits>
absl::StatusOr<ModelLoss> Compare(const LogitsGolden& golden, const Logits& logits) {
  ModelLoss loss;
  for (const GoldenSequence& sequence : golden.sequences) {
    const std::vector<bool> writes = AssistantWrites(sequence.ids);
    ASSIGN_OR_RETURN(const std::vector<float> free, logits(sequence, nullptr));
    ASSIGN_OR_RETURN(const std::vector<float> given, logits(sequence, &sequence.experts));
    for (size_t t = 0; t < sequence.ids.size(); ++t) {
      const float* theirs = &golden.logits[(sequence.first_row + t) * golden.vocab];
      loss.everywhere.Add(theirs, &free[t * golden.vocab], golden.vocab);
      if (writes[t]) loss.taught.Add(theirs, &free[t * golden.vocab], golden.vocab);
      loss.given.Add(theirs, &given[t * golden.vocab], golden.vocab);
    }
  }
  return loss;
}

absl::StatusOr<ModelLoss> GraphLoss(const LogitsGolden& golden, const Checkpoint& checkpoint,
                                    ReferenceOptions options) {
  return Compare(golden,
                 [&](const GoldenSequence& sequence,
                     const ExpertChoices* experts) -> absl::StatusOr<std::vector<float>> {
                   options.forced = experts;
                   ASSIGN_OR_RETURN(ReferenceOutput out,
                                    RunReferenceGraph(checkpoint, sequence.ids, options));
                   return std::move(out.logits);
                 });
}

}  // namespace

void Loss::Add(const float* theirs, const float* ours, size_t vocab) {
  ++positions;
  logits += vocab;
  for (size_t i = 0; i < vocab; ++i) {
    const double delta = std::fabs(static_cast<double>(ours[i]) - theirs[i]);
    largest = std::max(largest, delta);
    sum += delta;
  }
  same_first += std::max_element(ours, ours + vocab) - ours ==
                std::max_element(theirs, theirs + vocab) - theirs;
  divergence += Divergence(theirs, ours, vocab);
}

void Loss::Add(const Loss& other) {
  positions += other.positions;
  same_first += other.same_first;
  logits += other.logits;
  largest = std::max(largest, other.largest);
  sum += other.sum;
  divergence += other.divergence;
}

absl::StatusOr<ModelLoss> EngineLoss(const LogitsGolden& golden, const std::filesystem::path& dir,
                                     WeightFormat format) {
  const TempDir out;
  RETURN_IF_ERROR(PackModel(dir, out / "packed", {.weights = format}));
  ASSIGN_OR_RETURN(std::shared_ptr<const PackedModel> model, PackedModel::Open(out / "packed"));
  PackedGraph graph(model, {.row_type = DType::kBF16});
  int number = 0;
  return Compare(
      golden,
      [&](const GoldenSequence& sequence,
          const ExpertChoices* experts) -> absl::StatusOr<std::vector<float>> {
        return graph.Step({{.sequence = number++, .ids = sequence.ids, .forced = experts}});
      });
}

absl::StatusOr<ModelLoss> EmulatedLoss(const LogitsGolden& golden, const Checkpoint& checkpoint,
                                       const BlockFormat& format) {
  const TempDir dir;
  RETURN_IF_ERROR(WriteChanged(checkpoint, dir.path(), RoundMatrices(format)));
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> rounded, Checkpoint::Open(dir.path()));
  return GraphLoss(golden, *rounded,
                   {.round_inputs = [&format](std::span<float> row) { format.RoundInputs(row); }});
}

absl::StatusOr<ModelLoss> ReferenceLoss(const LogitsGolden& golden, const Checkpoint& checkpoint) {
  return GraphLoss(golden, checkpoint, {});
}

}  // namespace bottega
