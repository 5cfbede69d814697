#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"
#include "core/tensor/dtype.h"

namespace bottega {

// y = x * W^T with W packed in tiles of 16 outputs.
//
// Order of every output y[m][n]: acc = +0; for k ascending: acc = fma(x[m][k], w[n][k], acc), f32.
// One rounding per step, whatever m, the tile, the thread or the instruction set: SIMD lanes run
// over n, threads over n and m.

inline constexpr int64_t kTileLanes = 16;

constexpr int64_t RoundUpToTile(int64_t n) {
  return (n + kTileLanes - 1) / kTileLanes * kTileLanes;
}

// A weight matrix W [n, k] as [ceil(n / 16)][k][16] elements of `dtype`; lanes past n are zero.
// `data` need not be aligned for correctness; 64 bytes is best.
struct PackedMatrix {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t n = 0;  // outputs
  int64_t k = 0;  // inputs
};

constexpr size_t PackedBytes(DType dtype, int64_t n, int64_t k) {
  return static_cast<size_t>(RoundUpToTile(n) * k) * SizeOf(dtype);
}

// Some rows of a row-major matrix of width k, as a checkpoint stores them: [rows, k], contiguous.
struct RowBlock {
  const void* data = nullptr;
  DType dtype = DType::kBF16;
  int64_t rows = 0;
};

// Packs the blocks, one under the other (q, k and v make one matrix), as PackedMatrix of `dtype`
// into dst (PackedBytes of the total rows). f32 -> bf16 rounds to nearest even; bf16 -> f32 is
// exact.
void PackTiles(absl::Span<const RowBlock> blocks, int64_t k, DType dtype, void* dst);

struct MatMulArgs {
  const float* x = nullptr;  // [m, k], rows x_stride floats apart
  int64_t x_stride = 0;
  int64_t m = 0;
  PackedMatrix w;      // [n, k]
  float* y = nullptr;  // [m, n], rows y_stride floats apart; not overlapping x
  int64_t y_stride = 0;
  bool add = false;  // y = y + acc, one addition at the end (the residual), instead of y = acc
};
void MatMul(const Cpu& cpu, const MatMulArgs& args);

// Independent products in one parallel region (the experts of a layer). Outputs do not overlap;
// m == 0 is allowed.
void MatMulGroup(const Cpu& cpu, absl::Span<const MatMulArgs> group);

}  // namespace bottega
