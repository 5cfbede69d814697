#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/model/config.h"

namespace bottega {
namespace {

// The dimension whose wavelength makes `rotations` turns within the trained context.
double CorrectionDim(double rotations, const RopeConfig& rope, double dim) {
  return dim * std::log(rope.original_max_positions / (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(rope.theta));
}

// YaRN: dimensions that turn often keep their frequency, those that turn less than once in the
// trained context are slowed by `factor`, with a linear ramp between the two. Every f32 step below
// is one rounding that torch makes too.
void ApplyYarn(const RopeConfig& rope, int head_dim, const std::vector<float>& wavelengths,
               std::vector<float>& inv_freq) {
  double dim = head_dim;
  double low = CorrectionDim(rope.beta_fast, rope, dim);
  double high = CorrectionDim(rope.beta_slow, rope, dim);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;
  const auto low_f32 = static_cast<float>(low);
  const auto width_f32 = static_cast<float>(high - low);
  const auto factor_f32 = static_cast<float>(rope.factor);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    float ramp = std::clamp((static_cast<float>(i) - low_f32) / width_f32, 0.0f, 1.0f);
    float keep = 1.0f - ramp;
    float extrapolated = 1.0f / wavelengths[i];
    float interpolated = 1.0f / (factor_f32 * wavelengths[i]);
    inv_freq[i] = interpolated * (1.0f - keep) + extrapolated * keep;
  }
}

}  // namespace

RopeTable MakeRopeTable(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const auto pairs = static_cast<size_t>(config.head_dim / 2);
  const auto theta_f32 = static_cast<double>(static_cast<float>(rope.theta));
  std::vector<float> wavelengths(pairs);  // over 2 pi
  RopeTable table;
  table.inv_freq.resize(pairs);
  for (size_t i = 0; i < pairs; ++i) {
    float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    wavelengths[i] = static_cast<float>(std::pow(theta_f32, static_cast<double>(exponent)));
    table.inv_freq[i] = 1.0f / wavelengths[i];
  }
  if (rope.kind == RopeConfig::Kind::kYarn) {
    ApplyYarn(rope, config.head_dim, wavelengths, table.inv_freq);
    table.attention_scaling = static_cast<float>(rope.attention_factor);
  }
  return table;
}

}  // namespace bottega
