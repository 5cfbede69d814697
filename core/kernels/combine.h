#pragma once

#include <cstdint>

#include "core/kernels/cpu/cpu.h"
#include "core/tensor/dtype.h"

namespace bottega {

// Adds the experts' rows to the residual stream.
//
// Order: acc = +0; for the token's experts in ascending id: acc = fma(weight, row, acc); then
// residual = residual + acc, one addition. Who computed a row, and when it arrived, cannot matter.
struct CombineArgs {
  const void* const* rows =
      nullptr;                     // [tokens, top_k] pointers to [width] of row_dtype, in the order
                                   // of weights (ascending expert id); any alignment of 2 or 4
  const float* weights = nullptr;  // [tokens, top_k]
  DType row_dtype = DType::kBF16;
  int64_t tokens = 0;
  int64_t top_k = 0;
  int64_t width = 0;
  float* residual = nullptr;  // [tokens, width], rows residual_stride floats apart; updated
  int64_t residual_stride = 0;
};
void Combine(const Cpu& cpu, const CombineArgs& args);

}  // namespace bottega
