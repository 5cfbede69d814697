#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"
#include "core/tensor/dtype.h"

namespace bottega {

// Moving rows between the order of tokens and the order of experts, and between f32 and R. Widening
// is exact; rounding is to nearest even.

// dst[i] = widen(src[index[i]]). Also the embedding lookup.
struct GatherRowsArgs {
  const void* src = nullptr;  // rows of dtype, src_stride elements apart
  DType dtype = DType::kBF16;
  int64_t src_stride = 0;
  absl::Span<const int32_t> index;  // [rows]; the caller has checked the range
  int64_t width = 0;
  float* dst = nullptr;  // [rows, width], rows dst_stride floats apart
  int64_t dst_stride = 0;
};
void GatherRows(const Cpu& cpu, const GatherRowsArgs& args);

// dst_rows[i] = round(src[i]).
struct RoundRowsArgs {
  const float* src = nullptr;  // [rows], src_stride floats apart
  int64_t src_stride = 0;
  int64_t width = 0;
  absl::Span<std::byte* const> dst_rows;  // [rows], each [width] of dtype, anywhere
  DType dtype = DType::kBF16;
};
void RoundRows(const Cpu& cpu, const RoundRowsArgs& args);

// Sorts assignments by expert, stable (a counting sort). Assignment i (a (token, expert) pair, in
// the order of arrival) wants experts[i] < expert_count. Expert e's assignments are
// order[offsets[e] .. offsets[e + 1]), ascending.
void GroupByExpert(absl::Span<const uint16_t> experts,  // [assignments]
                   absl::Span<int32_t> offsets,         // [expert_count + 1]
                   absl::Span<int32_t> order);          // [assignments]

}  // namespace bottega
