#include "bench/accuracy/layers.h"

#include <cmath>
#include <random>

#include "bench/accuracy/changed_checkpoint.h"

namespace bottega {
namespace {

constexpr int64_t kRows = kLayerRows;
constexpr uint64_t kSeed = 20;

std::vector<float> Gaussian(std::mt19937_64& random, int64_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

void ScaleColumn(std::vector<float>& values, int64_t column, float factor) {
  for (size_t at = static_cast<size_t>(column); at < values.size(); at += kLayerHidden) {
    values[at] *= factor;
  }
}

// [kRows, n] = x [kRows, k] times w [n, k]. All rows side by side, each summed over k ascending.
std::vector<double> Product(const std::vector<float>& x, const std::vector<float>& w) {
  const size_t k = x.size() / kRows, n = w.size() / k;
  std::vector<double> columns(x.size()), y(kRows * n);
  for (size_t i = 0; i < x.size(); ++i) columns[i % k * kRows + i / k] = x[i];
  for (size_t output = 0; output < n; ++output) {
    double sums[kRows] = {};
    for (size_t i = 0; i < k; ++i) {
      const double weight = w[output * k + i];
      for (size_t row = 0; row < kRows; ++row) sums[row] += weight * columns[i * kRows + row];
    }
    for (size_t row = 0; row < kRows; ++row) y[row * n + output] = sums[row];
  }
  return y;
}

std::vector<float> SwiGlu(const std::vector<double>& gate, const std::vector<double>& up) {
  std::vector<float> inner(gate.size());
  for (size_t i = 0; i < gate.size(); ++i) {
    inner[i] = static_cast<float>(gate[i] / (1 + std::exp(-gate[i])) * up[i]);
  }
  return inner;
}

// Each row of k values rounded, as inputs or as weights.
std::vector<float> Rounded(std::vector<float> values, int64_t k, const BlockFormat* format,
                           void (BlockFormat::*round)(std::span<float>) const) {
  const auto width = static_cast<size_t>(k);
  for (size_t at = 0; format != nullptr && at < values.size(); at += width) {
    (format->*round)(std::span(values).subspan(at, width));
  }
  return values;
}

double RelativeRms(const std::vector<double>& outputs, const std::vector<double>& exact) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    difference += (outputs[i] - exact[i]) * (outputs[i] - exact[i]);
    norm += exact[i] * exact[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace

double ExpertBytesPerWeight(const BlockFormat& format) {
  return (2 * format.BytesPerWeight(kLayerHidden) + format.BytesPerWeight(kLayerWidth)) / 3;
}

Layers::Layers(bool outliers) {
  std::mt19937_64 random(kSeed);
  matrices_ = {.gate = Gaussian(random, kLayerWidth * kLayerHidden, 0.02f),
               .up = Gaussian(random, kLayerWidth * kLayerHidden, 0.02f),
               .down = Gaussian(random, kLayerHidden * kLayerWidth, 0.02f),
               .projection = Gaussian(random, kLayerOutputs * kLayerHidden, 0.02f)};
  x_ = Gaussian(random, kRows * kLayerHidden, 1);
  if (outliers) {
    for (int64_t channel : OutlierChannels(kLayerHidden, kSeed)) {
      ScaleColumn(x_, channel, kOutlierFactor);
      for (auto* matrix : {&matrices_.gate, &matrices_.up, &matrices_.projection}) {
        ScaleColumn(*matrix, channel, 1 / kOutlierFactor);
      }
    }
  }
  exact_ = Run(matrices_, x_, nullptr);
}

LayerOutputs Layers::Run(const LayerMatrices& matrices, const std::vector<float>& x,
                         const BlockFormat* format) {
  const auto weights = [format](const std::vector<float>& matrix, int64_t k) {
    return Rounded(matrix, k, format, &BlockFormat::RoundWeights);
  };
  const auto inputs = [format](const std::vector<float>& rows, int64_t k) {
    return Rounded(rows, k, format, &BlockFormat::RoundInputs);
  };
  const std::vector<float> in = inputs(x, kLayerHidden);
  const std::vector<float> inner = SwiGlu(Product(in, weights(matrices.gate, kLayerHidden)),
                                          Product(in, weights(matrices.up, kLayerHidden)));
  return {.expert = Product(inputs(inner, kLayerWidth), weights(matrices.down, kLayerWidth)),
          .projection = Product(in, weights(matrices.projection, kLayerHidden))};
}

LayerErrors Layers::Compare(const LayerOutputs& outputs) const {
  return {.expert = RelativeRms(outputs.expert, exact_.expert),
          .projection = RelativeRms(outputs.projection, exact_.projection)};
}

LayerErrors Layers::Emulated(const BlockFormat& format) const {
  return Compare(Run(matrices_, x_, &format));
}

LayerErrors Layers::Engine(WeightFormat format) const {
  return Compare(RunInEngine(matrices_, x_, format));
}

}  // namespace bottega
