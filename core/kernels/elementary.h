#pragma once

#include <cstdint>

namespace bottega {

// Our own elementary functions: the C library's differ between versions and machines. The same
// bits everywhere; vector code (cpu/lane_math.h) does exactly these operations per lane. Results on
// NaN are NaN (payload not defined).

// e^x, f32. Below 1 ulp (0.93 measured), denormal results included; -inf gives 0, above 88.72 gives
// inf, 0 gives 1.
float Exp(float x);

// 1 / (1 + Exp(-x)) and x / (1 + Exp(-x)).
float Sigmoid(float x);
float Silu(float x);

// Natural logarithm of a positive finite normal double, about 1e-15 relative.
double Log(double x);

// sin and cos of |x| <= 2^20 (a position times a frequency <= 1), correctly rounded but for about
// one f32 in 10^8: computed in f64, rounded once.
struct SinCos {
  float sin, cos;
};
SinCos SinCosOf(float x);

}  // namespace bottega
