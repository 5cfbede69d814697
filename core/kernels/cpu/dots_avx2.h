#pragma once

#include "core/kernels/cpu/dots_scalar.h"
#include "core/kernels/cpu/lanes_avx2.h"

namespace bottega {

// vpmaddubsw would saturate at 16 bits; bytes are widened and multiplied by vpmaddwd, which adds
// pairs, so a lane's sum is kept in two halves until the group ends. A tile of 16 lanes is then 4
// registers a row: with two rows 8 sums, 2 inputs and 1 weight live in 16 registers, and a widened
// weight (the dear part: a shuffle each) is used twice.
template <>
struct Dots<Avx2Lanes> {
  static constexpr int kPackedRows = 0;

  template <int R, int T>
  BOTTEGA_LANES void Run(const uint8_t* w, const int8_t* x, int64_t x_stride, int64_t quads,
                         const int32_t* offsets, int64_t offset_stride, Avx2Lanes (&sums)[R][T]) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
      for (int r = 0; r + 1 < R; r += 2) {
        Tile<2>(w + t * 64, T * 64, x + r * x_stride, x_stride, quads, offsets + r * offset_stride,
                offset_stride, &sums[r][t], T);
      }
      if constexpr (R % 2 == 1) {
        Tile<1>(w + t * 64, T * 64, x + (R - 1) * x_stride, x_stride, quads,
                offsets + (R - 1) * offset_stride, offset_stride, &sums[R - 1][t], T);
      }
    }
  }

  BOTTEGA_LANES void Unpack(const uint8_t* from, uint8_t* low, uint8_t* high) {
    const __m256i mask = _mm256_set1_epi8(15);
    for (int i = 0; i < 64; i += 32) {
      const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(low + i), _mm256_and_si256(both, mask));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(high + i),
                          _mm256_and_si256(_mm256_srli_epi16(both, 4), mask));
    }
  }

 private:
  template <int R>
  BOTTEGA_LANES void Tile(const uint8_t* w, int64_t w_stride, const int8_t* x, int64_t x_stride,
                          int64_t quads, const int32_t* offsets, int64_t offset_stride,
                          Avx2Lanes* sums, int64_t sum_stride) {
    __m256i halves[R][4];
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) halves[r][i] = _mm256_setzero_si256();
    }
    for (int64_t q = 0; q < quads; ++q) {
      __m256i input[R];
#pragma GCC unroll 2
      for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + r * x_stride + 4 * q, 4);
        input[r] = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m256i weight = _mm256_cvtepu8_epi16(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + q * w_stride + 16 * i)));
#pragma GCC unroll 2
        for (int r = 0; r < R; ++r) {
          halves[r][i] = _mm256_add_epi32(halves[r][i], _mm256_madd_epi16(weight, input[r]));
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < R; ++r) {
      const __m256i offset = _mm256_set1_epi32(offsets[r * offset_stride]);
      sums[r * sum_stride] = {Whole(halves[r][0], halves[r][1], offset),
                              Whole(halves[r][2], halves[r][3], offset)};
    }
  }
  // Adds the halves of lanes 0-3 (a) and 4-7 (b): hadd leaves quarters 0 2 1 3.
  BOTTEGA_LANES __m256 Whole(__m256i a, __m256i b, __m256i offset) {
    const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(sums, offset));
  }
};

}  // namespace bottega
