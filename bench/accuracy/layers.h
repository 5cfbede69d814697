#pragma once

#include <cstdint>
#include <vector>

#include "bench/accuracy/block_format.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// Layers of EngGPT2's width with gaussian weights (deviation 0.02) and gaussian inputs (1): an
// expert of hidden 2880 and width 1080, and a projection of 2880 inputs to 4096 outputs.
inline constexpr int64_t kLayerHidden = 2880, kLayerWidth = 1080, kLayerOutputs = 4096;
inline constexpr int64_t kLayerRows = 16;  // of inputs

// All row-major.
struct LayerMatrices {
  std::vector<float> gate, up;    // [width, hidden]
  std::vector<float> down;        // [hidden, width]
  std::vector<float> projection;  // [outputs, hidden]
};
struct LayerOutputs {
  std::vector<double> expert;      // [rows, hidden]
  std::vector<double> projection;  // [rows, outputs]
};

// By the engine's kernels; x [rows, hidden].
LayerOutputs RunInEngine(const LayerMatrices& matrices, const std::vector<float>& x,
                         WeightFormat format);

// Mean bytes of a weight of that expert.
double ExpertBytesPerWeight(const BlockFormat& format);

// RMS of (output - exact) / RMS of exact, over all outputs; exact: sums in double precision.
struct LayerErrors {
  double expert = 0;
  double projection = 0;
};

class Layers {
 public:
  // Outliers: a few inputs times 16, the columns that meet them divided by that.
  explicit Layers(bool outliers);

  LayerErrors Emulated(const BlockFormat& format) const;
  LayerErrors Engine(WeightFormat format) const;  // the engine's kernels on f32 rows

 private:
  // With no format: exact.
  static LayerOutputs Run(const LayerMatrices& matrices, const std::vector<float>& x,
                          const BlockFormat* format);
  LayerErrors Compare(const LayerOutputs& outputs) const;

  LayerMatrices matrices_;
  std::vector<float> x_;  // [rows, hidden]
  LayerOutputs exact_;
};

}  // namespace bottega
