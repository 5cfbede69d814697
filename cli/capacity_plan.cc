#include "cli/capacity_plan.h"

#include <algorithm>

#include "core/model/footprint.h"
#include "core/model/packed_format.h"

namespace bottega {
namespace {

constexpr int64_t kLeastContext = 4096;  // below it a conversation is none
constexpr WeightFormat kPreferred[] = {WeightFormat::kInt8, WeightFormat::kInt4,
                                       WeightFormat::kBF16};

// 4096, 8192, ... below the model's own, and that.
std::vector<int64_t> Contexts(const ModelConfig& config) {
  std::vector<int64_t> contexts;
  for (int64_t c = kLeastContext; c < config.max_positions; c *= 2) contexts.push_back(c);
  contexts.push_back(config.max_positions);
  return contexts;
}

uint64_t KvBytes(const PlanQuestion& q, int64_t context) {
  return KvBytesOfSequence(q.config, q.row_type, context);
}

FormatPlan PlanFormat(const PlanQuestion& q, WeightFormat weights) {
  FormatPlan plan{.weights = weights};
  if (const absl::Status possible = CheckWeightFormat(q.config, weights); !possible.ok()) {
    plan.impossible = std::string(possible.message());
    return plan;
  }
  plan.weight_bytes = *PackedBytesOf(q.config, weights);
  plan.room_bytes = static_cast<int64_t>(q.memory_bytes) -
                    static_cast<int64_t>(plan.weight_bytes + kWorkingBytes);
  for (int64_t context : Contexts(q.config)) {
    plan.contexts.push_back({context, std::max<int64_t>(0, plan.room_bytes) /
                                          static_cast<int64_t>(KvBytes(q, context))});
  }
  const auto measured = q.measured.find(weights);
  plan.shares = measured == q.measured.end() ? TypicalShares(weights) : measured->second;
  const StepCosts costs(q.config, weights, q.row_type);
  plan.prefill =
      plan.shares.prefill * kPlannedPrompt / FloorSeconds(costs.Prefill(kPlannedPrompt), q.rates);
  for (size_t i = 0; i < kPlannedBatches.size(); ++i) {
    const double sequences = static_cast<double>(kPlannedBatches[i]);
    const StepCost cost = costs.Decode(sequences, static_cast<double>(q.context));
    plan.decode[i] = plan.shares.decode[i] * sequences / FloorSeconds(cost, q.rates);
  }
  return plan;
}

Recommendation Recommend(const PlanQuestion& q, const FormatPlan& plan) {
  Recommendation chosen{.weights = plan.weights};
  for (int64_t sequences : {int64_t{1}, q.sequences}) {  // the later wins where it can
    for (const ContextRoom& room : plan.contexts) {
      if (room.sequences < sequences) continue;
      chosen.context = room.context;
      chosen.sequences = sequences;
    }
  }
  chosen.kv_bytes = static_cast<uint64_t>(chosen.sequences) * KvBytes(q, chosen.context);
  return chosen;
}

}  // namespace

FloorShares TypicalShares(WeightFormat weights) {
  const std::string source = "typical of this engine on EngGPT2's shape, not of this machine";
  switch (weights) {
    case WeightFormat::kInt8:
      return {.prefill = 0.53, .decode = {1.0, 0.95, 0.84}, .source = source};
    case WeightFormat::kInt4:
      return {.prefill = 0.46, .decode = {1.0, 0.80, 0.76}, .source = source};
    default:
      return {.prefill = 0.35, .decode = {1.0, 0.95, 0.67}, .source = source};
  }
}

CapacityPlan MakePlan(const PlanQuestion& q) {
  CapacityPlan plan;
  for (WeightFormat weights : kPlannedFormats) plan.formats.push_back(PlanFormat(q, weights));
  for (WeightFormat weights : kPreferred) {
    if (q.packed_as.value_or(weights) != weights) continue;
    const auto format = std::ranges::find(plan.formats, weights, &FormatPlan::weights);
    if (!format->fits() || format->contexts.front().sequences < 1) continue;
    plan.recommendation = Recommend(q, *format);
    break;
  }
  return plan;
}

}  // namespace bottega
