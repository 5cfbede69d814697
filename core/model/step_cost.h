#pragma once

#include "core/model/config.h"
#include "core/tensor/dtype.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// What a machine does at best, by a micro-benchmark. 0: not known, and then it limits nothing.
struct MachineRates {
  double read_bytes_per_s = 0;
  double f32_ops_per_s = 0;  // a multiplication and an addition are two
  double int8_ops_per_s = 0;
};

// What some work cannot do without: the least bytes to read, the fewest operations.
struct StepCost {
  double weight_bytes = 0;
  double kv_bytes = 0;
  double f32_ops = 0;
  double int8_ops = 0;

  double bytes() const { return weight_bytes + kv_bytes; }
};

// The shortest time: reading and computing overlap, operations of both kinds share the cores.
double FloorSeconds(const StepCost& cost, const MachineRates& rates);

// The costs of one model in one weight format.
//
// Bytes: every matrix that a token meets is read once, in its packed size with scales and padding;
// of the embedding single rows, which do not count. Experts are met by as many as tokens that
// choose evenly are expected to hit, unless it is known how many they were. Operations: two for a
// weight and token; weights of quantised formats as int8, but the router and attention over the KV
// cache in f32. Norms, SwiGLU, softmax and sampling are not counted.
class StepCosts {
 public:
  // For a format that CheckWeightFormat allows; `row_type` is the KV cache's.
  StepCosts(const ModelConfig& config, WeightFormat weights, DType row_type);

  // Different experts of one layer that `tokens` tokens are expected to hit.
  double DistinctExperts(double tokens) const;

  // One token each of `sequences`, each of which sees `context` positions; together they hit
  // `experts` of a layer. Fractions are means.
  StepCost Decode(double sequences, double context) const;
  StepCost Decode(double sequences, double context, double experts) const;

  // A prompt of `tokens`, all at once, and the logits of its last token.
  StepCost Prefill(double tokens) const;

 private:
  // Without KV: `tokens` go through the layers, `sampled` of them through the head.
  StepCost Products(double tokens, double sampled, double experts) const;

  double experts_per_token_;
  double experts_of_layer_;
  double moe_layers_;
  bool quantised_;
  double shared_bytes_ = 0;  // read whatever the tokens choose
  double expert_bytes_ = 0;  // of one
  double layer_ops_;         // of a token in all layers, in the weight format
  double router_ops_;        // likewise, in f32
  double head_ops_;
  double attention_ops_;  // of a token and a position it sees, in all layers
  double kv_bytes_;       // of a position, in all layers
};

}  // namespace bottega
