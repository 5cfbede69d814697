#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/tensor/bf16.h"

#define BOTTEGA_LANES [[gnu::always_inline]] static inline

namespace bottega {

// 16 f32 lanes in two ymm registers: lanes 0-7 and 8-15. Meanings: lanes_scalar.h.
struct Avx2Lanes {
  __m256 lo, hi;

  struct Mask {
    __m256 lo, hi;  // all bits of a lane
  };
  static constexpr int kMatMulAccumulators = 6;
  static constexpr int kHeadsAtOnce = 4;
  static constexpr int kScoreBlocks = 1;
  static constexpr int kValueRuns = 1;

  BOTTEGA_LANES Avx2Lanes Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  BOTTEGA_LANES Avx2Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }

  BOTTEGA_LANES Avx2Lanes Load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
  }
  BOTTEGA_LANES Avx2Lanes Load(const BF16* p) {
    const __m128i* halves = reinterpret_cast<const __m128i*>(p);
    return {WidenBits(_mm_loadu_si128(halves)), WidenBits(_mm_loadu_si128(halves + 1))};
  }
  BOTTEGA_LANES Avx2Lanes LoadFirst(const float* p, int n) {
    const Mask mask = First(n);
    // The upper half's address is formed only if it is in the row; a masked-off load touches
    // nothing.
    return {_mm256_maskload_ps(p, _mm256_castps_si256(mask.lo)),
            n > 8 ? _mm256_maskload_ps(p + 8, _mm256_castps_si256(mask.hi)) : _mm256_setzero_ps()};
  }
  BOTTEGA_LANES Avx2Lanes LoadFirst(const BF16* p, int n) {
    alignas(32) BF16 padded[16] = {};
    for (int i = 0; i < n; ++i) padded[i] = p[i];
    return Load(padded);
  }
  BOTTEGA_LANES void Store(Avx2Lanes a, float* p) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  BOTTEGA_LANES void Store(Avx2Lanes a, BF16* p) {
    // packus interleaves the 128-bit halves; the permutation puts quarters 0 2 1 3 in order.
    const __m256i packed = _mm256_packus_epi32(RoundBits(a.lo), RoundBits(a.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  BOTTEGA_LANES void StoreFirst(Avx2Lanes a, float* p, int n) {
    const Mask mask = First(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(mask.lo), a.lo);
    if (n > 8) _mm256_maskstore_ps(p + 8, _mm256_castps_si256(mask.hi), a.hi);
  }
  BOTTEGA_LANES void StoreFirst(Avx2Lanes a, BF16* p, int n) {
    alignas(32) BF16 padded[16];
    Store(a, padded);
    for (int i = 0; i < n; ++i) p[i] = padded[i];
  }

  BOTTEGA_LANES void StoreInt8(Avx2Lanes a, int8_t* p, int n) {
    // packs works within 128-bit halves: four runs of four lanes end up in order 0 2 1 3.
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes =
        _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    if (n == 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
    } else {
      alignas(16) int8_t all[16];
      _mm_store_si128(reinterpret_cast<__m128i*>(all), bytes);
      for (int i = 0; i < n; ++i) p[i] = all[i];
    }
  }
  BOTTEGA_LANES void StoreHalves(Avx2Lanes a, float* low, float* high) {
    _mm256_storeu_ps(low, a.lo);
    _mm256_storeu_ps(high, a.hi);
  }

  BOTTEGA_LANES Avx2Lanes Add(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Sub(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Mul(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Div(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Fma(Avx2Lanes a, Avx2Lanes b, Avx2Lanes c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Max(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Min(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
  }
  BOTTEGA_LANES Avx2Lanes Negate(Avx2Lanes a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
  }

  BOTTEGA_LANES Mask NotBelow(Avx2Lanes a, Avx2Lanes limit) {
    return {_mm256_cmp_ps(a.lo, limit.lo, _CMP_NLT_UQ), _mm256_cmp_ps(a.hi, limit.hi, _CMP_NLT_UQ)};
  }
  BOTTEGA_LANES Mask First(int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i count = _mm256_set1_epi32(n);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lane)),
            _mm256_castsi256_ps(
                _mm256_cmpgt_epi32(count, _mm256_add_epi32(lane, _mm256_set1_epi32(8))))};
  }
  BOTTEGA_LANES bool Any(Mask mask) {
    return (_mm256_movemask_ps(mask.lo) | _mm256_movemask_ps(mask.hi)) != 0;
  }
  BOTTEGA_LANES Avx2Lanes Select(Mask mask, Avx2Lanes yes, Avx2Lanes no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, mask.lo), _mm256_blendv_ps(no.hi, yes.hi, mask.hi)};
  }

  BOTTEGA_LANES float TreeSum(Avx2Lanes a) {
    const __m256 eight = _mm256_add_ps(a.lo, a.hi);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  BOTTEGA_LANES float TreeMax(Avx2Lanes a) {
    const __m256 eight = _mm256_max_ps(a.lo, a.hi);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  BOTTEGA_LANES Avx2Lanes ScaleByPowerOf2(Avx2Lanes p, Avx2Lanes t) {
    return {ScaleHalf(p.lo, t.lo), ScaleHalf(p.hi, t.hi)};
  }

 private:
  BOTTEGA_LANES __m256 PowerOf2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  BOTTEGA_LANES __m256 ScaleHalf(__m256 p, __m256 t) {
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000));
    const __m256i half = _mm256_srai_epi32(n, 1);
    return _mm256_mul_ps(_mm256_mul_ps(p, PowerOf2(half)), PowerOf2(_mm256_sub_epi32(n, half)));
  }
  BOTTEGA_LANES __m256 WidenBits(__m128i bits) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  BOTTEGA_LANES __m256i RoundBits(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, nan);
  }
};

}  // namespace bottega
