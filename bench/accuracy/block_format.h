#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace bottega {

// Integers with a scale a block along the inputs of a matrix: ours at any block length, and the
// 32-wide blocks of llama.cpp. Values are rounded in place, to what the integers and the scale
// stand for, so that formats differ in nothing but their blocks and roundings.
struct BlockFormat {
  enum class Rule {
    kInt8,  // core/kernels/quantised.h: weights in [-127, 127], scale in bf16, rounded up
    kInt4,  // the same, weights in [-8, 7], the scale with the least squared error
    kQ8_0,  // weights in [-127, 127], scale = max |w| / 127 in f16
    kQ4_0,  // weights in [-8, 7], scale = the value of largest magnitude / -8 in f16
  };
  std::string name;
  Rule rule = Rule::kInt8;
  // The longest block of weights and of inputs; ours are the largest divisor of k, a multiple of 8,
  // that is not longer. The others' are 32, and a last one padded with zeros.
  int64_t weights_most = 32;
  int64_t inputs_most = 32;

  int64_t WeightBlock(int64_t k) const;
  int64_t InputBlock(int64_t k) const;
  // With the scales and the padding of the last block.
  double BytesPerWeight(int64_t k) const;

  void RoundWeights(std::span<float> row) const;
  // Inputs are int8 in every format: scale = max |x| / 127, in f32 for ours, in f16 for theirs.
  void RoundInputs(std::span<float> row) const;

  bool theirs() const { return rule == Rule::kQ8_0 || rule == Rule::kQ4_0; }
  bool four_bits() const { return rule == Rule::kInt4 || rule == Rule::kQ4_0; }
};

// The nearest f16, ties to even; |value| < 65504.
float RoundToF16(float value);

}  // namespace bottega
