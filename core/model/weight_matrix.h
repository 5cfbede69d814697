#pragma once

#include "core/base/check.h"
#include "core/kernels/matmul.h"
#include "core/kernels/quantised.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// A matrix [n, k] of a packed model in the model's weight format; a pointer into a Mapping that
// outlives it.
struct WeightMatrix {
  const std::byte* data = nullptr;
  WeightFormat format = WeightFormat::kBF16;
  int64_t n = 0;
  int64_t k = 0;

  PackedMatrix plain() const { return {data, ElementOf(format), n, k}; }  // not quantised
  QuantisedMatrix quantised() const { return {data, {.format = format, .n = n, .k = k}}; }
};

// A gated MLP: down(silu(gate x) * up x).
struct GatedMlpWeights {
  int64_t width = 0;
  WeightMatrix gate_up;  // both, interleaved: core/kernels/swiglu.h, or quantised GateUpShape
  WeightMatrix down;     // [hidden, width]

  QuantisedMatrix quantised_gate_up() const {
    return {gate_up.data, GateUpShape(gate_up.format, width, gate_up.k)};
  }
};

}  // namespace bottega
