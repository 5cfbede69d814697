#pragma once

#include "core/kernels/cpu/primitives.h"
#include "core/tensor/bf16.h"

// The matmul microkernel. A block is R rows by T tiles: R * T accumulators that live in registers
// over the whole of k, so that each weight vector is used R times and each broadcast x T times.
//
// The size: an FMA takes 4 cycles and two start per cycle, so at least 8 accumulators must be in
// flight. AVX-512 has 32 registers: 6 x 4 = 24 accumulators + 4 weights + 1 broadcast = 29, and per
// k 24 FMAs against 4 + 6 loads (two loads a cycle: the FMAs set the pace, 12 cycles). AVX2 has 16,
// and 16 lanes take two: 6 rows x 1 tile = 12 + 2 + 1 = 15. Few rows take more tiles instead (1 x
// 4): there memory sets the pace and several streams help it. A panel of 4 tiles is 368 KB in bf16
// for k = 2880: it comes from memory once and is read again from L2 for every further 6 rows.

namespace bottega {

inline constexpr int kMatMulRows = 6;

template <class L>
constexpr int TilesAtOnce(int rows) {
  const int tiles = L::kMatMulAccumulators / rows;
  return tiles < 1 ? 1 : tiles > kPanelTiles ? static_cast<int>(kPanelTiles) : tiles;
}

// x: first row; w: first tile; y: first row and column; columns: real ones from there on.
template <class L, class W, int R, int T>
void MatMulBlock(const MatMulPanel& p, const float* x, const W* w, float* y, int64_t columns) {
  L acc[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) acc[r][t] = L::Zero();
  }
  const int64_t tile_elements = p.k * 16;
  for (int64_t k = 0; k < p.k; ++k) {
    L weight[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) weight[t] = L::Load(w + t * tile_elements + k * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const L input = L::Set(x[r * p.x_stride + k]);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) acc[r][t] = L::Fma(input, weight[t], acc[r][t]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const int64_t left = columns - t * 16;
      const int real = left < 16 ? static_cast<int>(left) : 16;
      float* out = y + r * p.y_stride + t * 16;
      if (real == 16) {
        L::Store(p.add ? L::Add(L::Load(out), acc[r][t]) : acc[r][t], out);
      } else {
        L::StoreFirst(p.add ? L::Add(L::LoadFirst(out, real), acc[r][t]) : acc[r][t], out, real);
      }
    }
  }
}

template <class L, class W, int R>
void MatMulRowsOfPanel(const MatMulPanel& p, const float* x, float* y) {
  constexpr int kTiles = TilesAtOnce<L>(R);
  const int tiles = static_cast<int>((p.columns + 15) / 16);
  const W* w = static_cast<const W*>(p.w);
  int tile = 0;
  const auto step = [&]<int T>() {
    MatMulBlock<L, W, R, T>(p, x, w + tile * p.k * 16, y + tile * 16, p.columns - tile * 16);
    tile += T;
  };
  while (tiles - tile >= kTiles) step.template operator()<kTiles>();
  if constexpr (kTiles > 2) {
    if (tiles - tile >= 2) step.template operator()<2>();
  }
  if constexpr (kTiles > 1) {
    if (tiles - tile >= 1) step.template operator()<1>();
  }
}

template <class L, class W>
void MatMulPanelOf(const MatMulPanel& p) {
  int64_t row = 0;
  while (row < p.rows) {
    const float* x = p.x + row * p.x_stride;
    float* y = p.y + row * p.y_stride;
    const int64_t left = p.rows - row;
    switch (left < kMatMulRows ? left : kMatMulRows) {
      case 1:
        MatMulRowsOfPanel<L, W, 1>(p, x, y);
        break;
      case 2:
        MatMulRowsOfPanel<L, W, 2>(p, x, y);
        break;
      case 3:
        MatMulRowsOfPanel<L, W, 3>(p, x, y);
        break;
      case 4:
        MatMulRowsOfPanel<L, W, 4>(p, x, y);
        break;
      case 5:
        MatMulRowsOfPanel<L, W, 5>(p, x, y);
        break;
      default:
        MatMulRowsOfPanel<L, W, kMatMulRows>(p, x, y);
        break;
    }
    row += kMatMulRows;
  }
}

template <class L>
void MatMulPrimitive(const MatMulPanel& p) {
  if (p.dtype == DType::kF32) {
    MatMulPanelOf<L, float>(p);
  } else {
    MatMulPanelOf<L, BF16>(p);
  }
}

}  // namespace bottega
