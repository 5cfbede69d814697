#pragma once

#include <immintrin.h>

#include <cstdint>

#include "core/tensor/bf16.h"

#define BOTTEGA_LANES [[gnu::always_inline]] static inline

namespace bottega {

// 16 f32 lanes in one zmm register. Meanings: lanes_scalar.h.
struct Avx512Lanes {
  __m512 v;

  using Mask = __mmask16;
  static constexpr int kMatMulAccumulators = 24;
  static constexpr int kHeadsAtOnce = 8;
  static constexpr int kScoreBlocks = 2;
  static constexpr int kValueRuns = 2;

  BOTTEGA_LANES Avx512Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
  BOTTEGA_LANES Avx512Lanes Zero() { return {_mm512_setzero_ps()}; }

  BOTTEGA_LANES Avx512Lanes Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  BOTTEGA_LANES Avx512Lanes Load(const BF16* p) {
    return WidenBits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  BOTTEGA_LANES Avx512Lanes LoadFirst(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(First(n), p)};
  }
  BOTTEGA_LANES Avx512Lanes LoadFirst(const BF16* p, int n) {
    return WidenBits(_mm256_maskz_loadu_epi16(First(n), p));
  }
  BOTTEGA_LANES void Store(Avx512Lanes a, float* p) { _mm512_storeu_ps(p, a.v); }
  BOTTEGA_LANES void Store(Avx512Lanes a, BF16* p) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), RoundBits(a));
  }
  BOTTEGA_LANES void StoreFirst(Avx512Lanes a, float* p, int n) {
    _mm512_mask_storeu_ps(p, First(n), a.v);
  }
  BOTTEGA_LANES void StoreFirst(Avx512Lanes a, BF16* p, int n) {
    _mm256_mask_storeu_epi16(p, First(n), RoundBits(a));
  }

  BOTTEGA_LANES void StoreInt8(Avx512Lanes a, int8_t* p, int n) {
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v));
    if (n == 16) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
    } else {
      _mm_mask_storeu_epi8(p, First(n), bytes);
    }
  }
  BOTTEGA_LANES void StoreHalves(Avx512Lanes a, float* low, float* high) {
    _mm256_storeu_ps(low, _mm512_castps512_ps256(a.v));
    _mm256_storeu_ps(high, _mm512_extractf32x8_ps(a.v, 1));
  }

  BOTTEGA_LANES Avx512Lanes Add(Avx512Lanes a, Avx512Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Sub(Avx512Lanes a, Avx512Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Mul(Avx512Lanes a, Avx512Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Div(Avx512Lanes a, Avx512Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Fma(Avx512Lanes a, Avx512Lanes b, Avx512Lanes c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  BOTTEGA_LANES Avx512Lanes Max(Avx512Lanes a, Avx512Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Min(Avx512Lanes a, Avx512Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
  BOTTEGA_LANES Avx512Lanes Negate(Avx512Lanes a) {
    return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))};
  }

  BOTTEGA_LANES Mask NotBelow(Avx512Lanes a, Avx512Lanes limit) {
    return _mm512_cmp_ps_mask(a.v, limit.v, _CMP_NLT_UQ);
  }
  BOTTEGA_LANES Mask First(int n) { return static_cast<Mask>((1u << n) - 1); }
  BOTTEGA_LANES bool Any(Mask mask) { return mask != 0; }
  BOTTEGA_LANES Avx512Lanes Select(Mask mask, Avx512Lanes yes, Avx512Lanes no) {
    return {_mm512_mask_blend_ps(mask, no.v, yes.v)};
  }

  BOTTEGA_LANES float TreeSum(Avx512Lanes a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  BOTTEGA_LANES float TreeMax(Avx512Lanes a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  }

  BOTTEGA_LANES Avx512Lanes ScaleByPowerOf2(Avx512Lanes p, Avx512Lanes t) {
    const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(t.v), _mm512_set1_epi32(0x4b400000));
    const __m512i half = _mm512_srai_epi32(n, 1);
    return {_mm512_mul_ps(_mm512_mul_ps(p.v, PowerOf2(half)), PowerOf2(_mm512_sub_epi32(n, half)))};
  }

 private:
  BOTTEGA_LANES __m512 PowerOf2(__m512i n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
  }
  BOTTEGA_LANES Avx512Lanes WidenBits(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  // Not vcvtneps2bf16: it flushes denormals.
  BOTTEGA_LANES __m256i RoundBits(Avx512Lanes a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i upper = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    const __m512i bias = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
    const __m512i quiet = _mm512_or_si512(upper, _mm512_set1_epi32(0x40));
    const Mask nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, quiet));
  }
};

}  // namespace bottega
