#pragma once

// Elementary functions on 16 lanes: the operations of elementary.cc, lane by lane.

namespace bottega {

// e^x = 2^n * e^r, n = round(x / ln 2), |r| <= ln(2) / 2. The polynomial is 1 + (r + r^2 q(r)) with
// q a degree 4 fit of (e^r - 1 - r) / r^2 at Chebyshev nodes: relative error 1.1e-8 before
// rounding. ln 2 is split in two so that n * hi is exact. Clamping to [-104, 89] keeps |n| <= 150:
// past the ends the scaling gives exactly 0 and inf. Operand order in Max and Min lets a NaN
// through.
template <class L>
[[gnu::always_inline]] inline L ExpLanes(L x) {
  x = L::Min(L::Set(89.0f), L::Max(L::Set(-104.0f), x));
  const L t = L::Fma(x, L::Set(0x1.715476p+0f), L::Set(0x1.8p+23f));
  const L n = L::Sub(t, L::Set(0x1.8p+23f));
  L r = L::Fma(n, L::Set(-0x1.63p-1f), x);
  r = L::Fma(n, L::Set(0x1.bd0106p-13f), r);
  L q = L::Set(0x1.6d1116p-10f);
  q = L::Fma(q, r, L::Set(0x1.120b7cp-7f));
  q = L::Fma(q, r, L::Set(0x1.55551ap-5f));
  q = L::Fma(q, r, L::Set(0x1.5554dcp-3f));
  q = L::Fma(q, r, L::Set(0.5f));
  const L p = L::Add(L::Set(1.0f), L::Fma(q, L::Mul(r, r), r));
  return L::ScaleByPowerOf2(p, t);
}

template <class L>
[[gnu::always_inline]] inline L SiluLanes(L x) {
  return L::Div(x, L::Add(L::Set(1.0f), ExpLanes(L::Negate(x))));
}

}  // namespace bottega
