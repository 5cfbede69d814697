#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"

namespace bottega {

// Rotary embedding of half-split pairs (i, i + d/2), over all d = head_dim (even).

// cos and sin of the tokens of a step, [positions.size(), inv_freq.size()] each:
// angle = float(position) * inv_freq[i] in f32 (as the reference computes it), then sin and cos of
// that f32 (elementary.h), times attention_scaling in f32 (YaRN; else 1). Positions < 2^20 and
// inv_freq <= 1. Made once a step and used by all layers, so a row depends on its position only.
void RopeAngles(absl::Span<const float> inv_freq, float attention_scaling,
                absl::Span<const int32_t> positions, float* cos, float* sin);

// In place: a' = fma(a, cos, -(b * sin)), b' = fma(b, cos, a * sin), (a, b) = (x[i], x[i + d/2]).
struct RopeArgs {
  float* x = nullptr;  // [rows, heads, head_dim], rows x_stride floats apart
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  const float* cos = nullptr;  // [rows, head_dim / 2]
  const float* sin = nullptr;  // [rows, head_dim / 2]
};
void Rope(const Cpu& cpu, const RopeArgs& args);

}  // namespace bottega
