#pragma once

#include "core/kernels/cpu/dots_scalar.h"
#include "core/kernels/cpu/lanes_avx512.h"

namespace bottega {

// VNNI: four products of bytes a lane in one instruction, two of them a cycle at best with a
// latency of 4 or 5. 4 rows x 3 tiles are 12 sums in flight, enough for that; with their 12 sums
// over groups, 3 weights and a broadcast they take 28 of 32 registers. A quad of k costs 12
// multiplications and 7 loads, so multiplying sets the pace.
template <>
struct Dots<Avx512Lanes> {
  static constexpr int kPackedRows = 16;

  template <int R, int T>
  BOTTEGA_LANES void Run(const uint8_t* w, const int8_t* x, int64_t x_stride, int64_t quads,
                         const int32_t* offsets, int64_t offset_stride, Avx512Lanes (&sums)[R][T]) {
    __m512i sum[R][T];
    Begin(offsets, offset_stride, sum);
    for (int64_t q = 0; q < quads; ++q) {
      __m512i weight[T];
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) weight[t] = _mm512_loadu_si512(w + (q * T + t) * 64);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + r * x_stride + 4 * q, 4);
        const __m512i input = _mm512_set1_epi32(four);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) Add(sum[r][t], weight[t], input);
      }
    }
    End(sum, sums);
  }

  // The same sums from two quads to a byte, w: [quads / 2][T][64]. Unpacked in registers: through
  // L1 a single row would write as many bytes as it multiplies. It costs 9 operations for 24
  // products in each block of rows: from about 32 rows on, unpacking once for all is cheaper.
  template <int R, int T>
  BOTTEGA_LANES void RunPacked(const uint8_t* w, const int8_t* x, int64_t x_stride, int64_t quads,
                               const int32_t* offsets, int64_t offset_stride,
                               Avx512Lanes (&sums)[R][T]) {
    const __m512i mask = _mm512_set1_epi8(15);
    __m512i sum[R][T];
    Begin(offsets, offset_stride, sum);
    for (int64_t pair = 0; pair < quads / 2; ++pair) {
      __m512i low[T], high[T];
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        const __m512i both = _mm512_loadu_si512(w + (pair * T + t) * 64);
        low[t] = _mm512_and_si512(both, mask);
        high[t] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        int32_t four[2];
        __builtin_memcpy(four, x + r * x_stride + 8 * pair, 8);
        const __m512i first = _mm512_set1_epi32(four[0]), second = _mm512_set1_epi32(four[1]);
#pragma GCC unroll 4
        for (int t = 0; t < T; ++t) {
          Add(sum[r][t], low[t], first);
          Add(sum[r][t], high[t], second);
        }
      }
    }
    End(sum, sums);
  }

  BOTTEGA_LANES void Unpack(const uint8_t* from, uint8_t* low, uint8_t* high) {
    const __m512i mask = _mm512_set1_epi8(15);
    const __m512i both = _mm512_loadu_si512(from);
    _mm512_storeu_si512(low, _mm512_and_si512(both, mask));
    _mm512_storeu_si512(high, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask));
  }

 private:
  template <int R, int T>
  BOTTEGA_LANES void Begin(const int32_t* offsets, int64_t offset_stride, __m512i (&sum)[R][T]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sum[r][t] = _mm512_set1_epi32(offsets[r * offset_stride]);
    }
  }
  template <int R, int T>
  BOTTEGA_LANES void End(const __m512i (&sum)[R][T], Avx512Lanes (&sums)[R][T]) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) sums[r][t] = {_mm512_cvtepi32_ps(sum[r][t])};
    }
  }
  // Not the intrinsic: around it GCC 12 moves every sum through memory (measured: 150 instead of
  // 380 GOP/s a core).
  BOTTEGA_LANES void Add(__m512i& sum, __m512i weight, __m512i input) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weight), "v"(input));
  }
};

}  // namespace bottega
