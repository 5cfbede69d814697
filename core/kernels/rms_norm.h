#pragma once

#include <cstdint>

#include "core/kernels/cpu/cpu.h"
#include "core/tensor/dtype.h"

namespace bottega {

// y = (x * scale) * weight, scale = 1 / sqrt(sum(x^2) / width + eps), all f32.
//
// Order: lane[k mod 16] = fma(x[k], x[k], lane), k ascending from +0; the 16 lanes are added by the
// fixed tree (i with i+8, then i+4, i+2, i+1); then divide, add eps, sqrt, divide, and per element
// two multiplications. A bf16 output is rounded to nearest even at the end.
struct RmsNormArgs {
  const float* x = nullptr;  // [rows, groups, width], rows x_stride floats apart
  int64_t x_stride = 0;
  int64_t rows = 0;
  int64_t groups = 1;  // > 1: each run of `width` is its own norm with the same weight (q, k heads)
  int64_t width = 0;
  const float* weight = nullptr;  // [width]
  float eps = 0;
  void* y =
      nullptr;  // [rows, groups, width] of y_dtype, rows y_stride elements apart; may be x if f32
  int64_t y_stride = 0;
  DType y_dtype = DType::kF32;
};
void RmsNorm(const Cpu& cpu, const RmsNormArgs& args);

}  // namespace bottega
