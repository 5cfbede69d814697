#pragma once

#include "core/kernels/cpu/lanes_scalar.h"

namespace bottega {

// Dot products of four bytes a lane, in plain C++: the definition that the vector versions equal.
// Specialised for each lane type; Dots<L> is what quantised_lanes.h is written over.
template <class L>
struct Dots;

template <>
struct Dots<ScalarLanes> {
  static constexpr int kPackedRows = 0;  // up to so many rows RunPacked beats Unpack and Run

  // sums[r][t], lane l = offsets[r] + sum over quads q and j < 4 of
  //   w[(q * T + t) * 64 + 4 l + j] * x[r * x_stride + 4 q + j], exact, as f32.
  template <int R, int T>
  BOTTEGA_LANES void Run(const uint8_t* w, const int8_t* x, int64_t x_stride, int64_t quads,
                         const int32_t* offsets, int64_t offset_stride, ScalarLanes (&sums)[R][T]) {
    for (int r = 0; r < R; ++r) {
      for (int t = 0; t < T; ++t) {
        for (int l = 0; l < 16; ++l) {
          int32_t sum = offsets[r * offset_stride];
          for (int64_t q = 0; q < quads; ++q) {
            for (int j = 0; j < 4; ++j) {
              sum += w[(q * T + t) * 64 + 4 * l + j] * x[r * x_stride + 4 * q + j];
            }
          }
          sums[r][t].v[l] = static_cast<float>(sum);
        }
      }
    }
  }

  // Two quads to a byte: 64 bytes of `from` make 64 of `low` and 64 of `high`.
  BOTTEGA_LANES void Unpack(const uint8_t* from, uint8_t* low, uint8_t* high) {
    for (int i = 0; i < 64; ++i) {
      low[i] = from[i] & 15;
      high[i] = from[i] >> 4;
    }
  }
};

}  // namespace bottega
