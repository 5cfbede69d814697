#pragma once

#include <cstdint>

#include "core/tensor/bf16.h"

// 16 f32 lanes in plain C++: the definition that the vector versions must equal. The names and
// meanings here are the interface of all three (lanes_avx2.h, lanes_avx512.h).
//
// Included by one translation unit each, compiled with that instruction set. Everything here is
// always_inline or a template over the lane type, and nothing from the standard library is called:
// an inline function compiled twice under one name would be merged by the linker, and the AVX-512
// copy could end up in the program of a machine without it.
#define BOTTEGA_LANES [[gnu::always_inline]] static inline

namespace bottega {

struct ScalarLanes {
  float v[16];

  using Mask = uint16_t;                         // bit i: lane i
  static constexpr int kMatMulAccumulators = 4;  // see matmul_lanes.h
  static constexpr int kHeadsAtOnce = 4;         // see attention_lanes.h
  static constexpr int kScoreBlocks = 1;
  static constexpr int kValueRuns = 1;

  template <class Fn>
  BOTTEGA_LANES ScalarLanes Each(const Fn& fn) {
    ScalarLanes out;
    for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
    return out;
  }

  BOTTEGA_LANES ScalarLanes Set(float x) {
    return Each([&](int) { return x; });
  }
  BOTTEGA_LANES ScalarLanes Zero() { return Set(0.0f); }

  BOTTEGA_LANES ScalarLanes Load(const float* p) {
    return Each([&](int i) { return p[i]; });
  }
  BOTTEGA_LANES ScalarLanes Load(const BF16* p) {
    return Each([&](int i) { return Widen(p[i]); });
  }
  // Lanes past n are zero and memory past n is not touched; n in [0, 16].
  template <class T>
  BOTTEGA_LANES ScalarLanes LoadFirst(const T* p, int n) {
    ScalarLanes out = Zero();
    for (int i = 0; i < n; ++i) out.v[i] = WidenAny(p[i]);
    return out;
  }
  BOTTEGA_LANES void Store(ScalarLanes a, float* p) { StoreFirst(a, p, 16); }
  BOTTEGA_LANES void Store(ScalarLanes a, BF16* p) { StoreFirst(a, p, 16); }  // rounds
  BOTTEGA_LANES void StoreFirst(ScalarLanes a, float* p, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.v[i];
  }
  BOTTEGA_LANES void StoreFirst(ScalarLanes a, BF16* p, int n) {
    for (int i = 0; i < n; ++i) p[i] = RoundToBF16(a.v[i]);
  }

  // Lanes that are integers in [-128, 127], the first n of them.
  BOTTEGA_LANES void StoreInt8(ScalarLanes a, int8_t* p, int n) {
    for (int i = 0; i < n; ++i) p[i] = static_cast<int8_t>(a.v[i]);
  }
  BOTTEGA_LANES void StoreHalves(ScalarLanes a, float* low, float* high) {
    for (int i = 0; i < 8; ++i) {
      low[i] = a.v[i];
      high[i] = a.v[i + 8];
    }
  }

  BOTTEGA_LANES ScalarLanes Add(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] + b.v[i]; });
  }
  BOTTEGA_LANES ScalarLanes Sub(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] - b.v[i]; });
  }
  BOTTEGA_LANES ScalarLanes Mul(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] * b.v[i]; });
  }
  BOTTEGA_LANES ScalarLanes Div(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] / b.v[i]; });
  }
  // a * b + c, rounded once.
  BOTTEGA_LANES ScalarLanes Fma(ScalarLanes a, ScalarLanes b, ScalarLanes c) {
    return Each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  // a > b ? a : b, so b if either is NaN or both are zero (as vmaxps does).
  BOTTEGA_LANES ScalarLanes Max(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  BOTTEGA_LANES ScalarLanes Min(ScalarLanes a, ScalarLanes b) {
    return Each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  BOTTEGA_LANES ScalarLanes Negate(ScalarLanes a) {
    return Each([&](int i) { return -a.v[i]; });
  }

  // Lanes that are not below `limit`: at or above it, or NaN.
  BOTTEGA_LANES Mask NotBelow(ScalarLanes a, ScalarLanes limit) {
    Mask mask = 0;
    for (int i = 0; i < 16; ++i) mask |= static_cast<Mask>(!(a.v[i] < limit.v[i])) << i;
    return mask;
  }
  BOTTEGA_LANES Mask First(int n) { return static_cast<Mask>((1u << n) - 1); }
  BOTTEGA_LANES bool Any(Mask mask) { return mask != 0; }
  BOTTEGA_LANES ScalarLanes Select(Mask mask, ScalarLanes yes, ScalarLanes no) {
    return Each([&](int i) { return (mask >> i) & 1 ? yes.v[i] : no.v[i]; });
  }

  // The fixed tree: lane i with i + 8, then i + 4, i + 2, i + 1.
  BOTTEGA_LANES float TreeSum(ScalarLanes a) {
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
    }
    return a.v[0];
  }
  BOTTEGA_LANES float TreeMax(ScalarLanes a) {
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
    }
    return a.v[0];
  }

  // p * 2^n for t = n + 1.5 * 2^23 (n sits in t's low bits), |n| <= 252: two multiplications by
  // powers of two, of which only the second can round, so a denormal result is rounded once.
  BOTTEGA_LANES ScalarLanes ScaleByPowerOf2(ScalarLanes p, ScalarLanes t) {
    return Each([&](int i) {
      const int32_t n = static_cast<int32_t>(__builtin_bit_cast(uint32_t, t.v[i]) - 0x4b400000u);
      const int32_t half = n >> 1;
      return p.v[i] * PowerOf2(half) * PowerOf2(n - half);
    });
  }

 private:
  BOTTEGA_LANES float WidenAny(float x) { return x; }
  BOTTEGA_LANES float WidenAny(BF16 x) { return Widen(x); }
  BOTTEGA_LANES float PowerOf2(int32_t n) {
    return __builtin_bit_cast(float, (static_cast<uint32_t>(n) + 127u) << 23);
  }
};

}  // namespace bottega
