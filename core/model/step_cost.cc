#include "core/model/step_cost.h"

#include <algorithm>
#include <cmath>

#include "core/model/footprint.h"
#include "core/model/packed_format.h"

namespace bottega {
namespace {

double TimeOf(double amount, double rate) { return rate > 0 ? amount / rate : 0; }

}  // namespace

double FloorSeconds(const StepCost& cost, const MachineRates& rates) {
  return std::max(
      TimeOf(cost.bytes(), rates.read_bytes_per_s),
      TimeOf(cost.int8_ops, rates.int8_ops_per_s) + TimeOf(cost.f32_ops, rates.f32_ops_per_s));
}

StepCosts::StepCosts(const ModelConfig& c, WeightFormat weights, DType row_type)
    : experts_per_token_(c.experts_per_token),
      experts_of_layer_(c.num_experts),
      moe_layers_(c.num_moe_layers()),
      quantised_(IsQuantised(weights)),
      kv_bytes_(static_cast<double>(KvBytesPerToken(c, row_type))) {
  for (const Region& region : PlanRegions(c, weights)) {
    if (region.file.starts_with("experts.")) {
      expert_bytes_ = static_cast<double>(region.bytes);
    } else if (region.name != "embedding") {
      shared_bytes_ += static_cast<double>(region.bytes);
    }
  }
  const double hidden = c.hidden_size;
  layer_ops_ = 2 * hidden *
               (c.num_layers * 2.0 * (c.q_dim() + c.kv_dim()) +
                moe_layers_ * experts_per_token_ * 3 * c.expert_width +
                c.num_dense_layers() * 3.0 * c.dense_width);
  router_ops_ = 2 * hidden * moe_layers_ * experts_of_layer_;
  head_ops_ = 2 * hidden * c.vocab_size;
  attention_ops_ = 4.0 * c.num_layers * c.q_dim();  // q k and p v, two operations each
}

double StepCosts::DistinctExperts(double tokens) const {
  if (moe_layers_ == 0) return 0;
  return experts_of_layer_ * (1 - std::pow(1 - experts_per_token_ / experts_of_layer_, tokens));
}

StepCost StepCosts::Products(double tokens, double sampled, double experts) const {
  const double products = tokens * layer_ops_ + sampled * head_ops_;
  return {.weight_bytes = shared_bytes_ + moe_layers_ * experts * expert_bytes_,
          .f32_ops = tokens * router_ops_ + (quantised_ ? 0 : products),
          .int8_ops = quantised_ ? products : 0};
}

StepCost StepCosts::Decode(double sequences, double context) const {
  return Decode(sequences, context, DistinctExperts(sequences));
}

StepCost StepCosts::Decode(double sequences, double context, double experts) const {
  StepCost cost = Products(sequences, sequences, experts);
  cost.kv_bytes = sequences * context * kv_bytes_;
  cost.f32_ops += sequences * context * attention_ops_;
  return cost;
}

StepCost StepCosts::Prefill(double tokens) const {
  StepCost cost = Products(tokens, 1, DistinctExperts(tokens));
  // Token t sees t + 1 positions; their K and V have just been made.
  cost.f32_ops += tokens * (tokens + 1) / 2 * attention_ops_;
  return cost;
}

}  // namespace bottega
