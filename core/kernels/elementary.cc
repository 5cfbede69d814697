#include "core/kernels/elementary.h"

#include <bit>
#include <cmath>

#include "core/base/check.h"

namespace bottega {
namespace {

float PowerOf2(int32_t n) { return std::bit_cast<float>((static_cast<uint32_t>(n) + 127u) << 23); }

// Taylor coefficients: for |r| <= pi / 4 the first left-out term of each is below 2^-57.
double SinPolynomial(double r) {
  const double z = r * r;
  double p = 1.0 / 355687428096000.0;  // 1 / 17!
  p = p * z - 1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return r + r * z * p;
}

double CosPolynomial(double r) {
  const double z = r * r;
  double p = 1.0 / 20922789888000.0;  // 1 / 16!
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  p = p * z - 0.5;
  return 1.0 + z * p;
}

}  // namespace

// The derivation is in cpu/lane_math.h, which does the same on 16 lanes; keep the two alike.
float Exp(float x) {
  x = -104.0f > x ? -104.0f : x;
  x = 89.0f < x ? 89.0f : x;
  const float t = std::fma(x, 0x1.715476p+0f, 0x1.8p+23f);
  const float n = t - 0x1.8p+23f;
  float r = std::fma(n, -0x1.63p-1f, x);
  r = std::fma(n, 0x1.bd0106p-13f, r);
  float q = 0x1.6d1116p-10f;
  q = std::fma(q, r, 0x1.120b7cp-7f);
  q = std::fma(q, r, 0x1.55551ap-5f);
  q = std::fma(q, r, 0x1.5554dcp-3f);
  q = std::fma(q, r, 0.5f);
  const float p = 1.0f + std::fma(q, r * r, r);
  const int32_t power = static_cast<int32_t>(std::bit_cast<uint32_t>(t) - 0x4b400000u);
  const int32_t half = power >> 1;
  return p * PowerOf2(half) * PowerOf2(power - half);
}

float Sigmoid(float x) { return 1.0f / (1.0f + Exp(-x)); }
float Silu(float x) { return x / (1.0f + Exp(-x)); }

// x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <=
// 0.1716: the first left-out term, s^23 / 23, is below 2^-62.
double Log(double x) {
  CHECK(x >= 0x1p-1022 && x <= 0x1.fffffffffffffp+1023);
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdULL;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const uint64_t above = bits - kSqrtHalf;
  const int64_t e = static_cast<int64_t>(above) >> 52;
  const double m = std::bit_cast<double>((above & 0xfffffffffffffULL) + kSqrtHalf);
  const double s = (m - 1.0) / (m + 1.0);
  const double z = s * s;
  double p = 1.0 / 21.0;
  for (int odd = 19; odd >= 3; odd -= 2) p = p * z + 1.0 / odd;
  // ln 2 in two parts; e * hi is exact (hi has 32 bits).
  const double tail = s * z * p * 2.0 + static_cast<double>(e) * 0x1.a39ef35793c76p-33;
  return static_cast<double>(e) * 0x1.62e42feep-1 + (2.0 * s + tail);
}

// r = x - k pi / 2 with pi / 2 in two parts: k * hi is exact for k < 2^20 (hi has 33 bits), and so
// is the subtraction; lo carries 53 more bits, so r is good to about 2^-66 absolute.
SinCos SinCosOf(float x) {
  CHECK(x >= -0x1p20f && x <= 0x1p20f);
  const double shifted = static_cast<double>(x) * 0x1.45f306dc9c883p-1 + 0x1.8p+52;
  const double k = shifted - 0x1.8p+52;
  const double r = (static_cast<double>(x) - k * 0x1.921fb544p+0) - k * 0x1.0b4611a626331p-34;
  const double sine = SinPolynomial(r), cosine = CosPolynomial(r);
  switch (static_cast<int64_t>(k) & 3) {
    case 0:
      return {static_cast<float>(sine), static_cast<float>(cosine)};
    case 1:
      return {static_cast<float>(cosine), static_cast<float>(-sine)};
    case 2:
      return {static_cast<float>(-sine), static_cast<float>(-cosine)};
    default:
      return {static_cast<float>(-cosine), static_cast<float>(sine)};
  }
}

}  // namespace bottega
