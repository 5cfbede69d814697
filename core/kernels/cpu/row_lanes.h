#pragma once

#include "core/kernels/cpu/lane_math.h"
#include "core/kernels/cpu/primitives.h"
#include "core/tensor/bf16.h"

// The operators that work along one row: whole runs of 16, then the rest with the same arithmetic
// on partial loads and stores.

namespace bottega {

// Calls body(i, n) for i = 0, 16, ... with n = 16, and once with the rest.
template <class Body>
[[gnu::always_inline]] inline void ForRuns(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) body(i, 16);
  if (i < count) body(i, static_cast<int>(count - i));
}

template <class L, class T>
[[gnu::always_inline]] inline L LoadRun(const T* p, int n) {
  return n == 16 ? L::Load(p) : L::LoadFirst(p, n);
}
template <class L, class T>
[[gnu::always_inline]] inline void StoreRun(L a, T* p, int n) {
  n == 16 ? L::Store(a, p) : L::StoreFirst(a, p, n);
}

template <class L, class Y>
[[gnu::always_inline]] inline void NormRowTo(const NormRow& row, Y* y) {
  L squares = L::Zero();
  // A missing lane is fma(0, 0, lane) = lane: lanes start at +0 and only grow.
  ForRuns(row.width, [&](int64_t i, int n) {
    const L x = LoadRun<L>(row.x + i, n);
    squares = L::Fma(x, x, squares);
  });
  const float mean = L::TreeSum(squares) / static_cast<float>(row.width);
  const L scale = L::Set(1.0f / __builtin_sqrtf(mean + row.eps));
  ForRuns(row.width, [&](int64_t i, int n) {
    const L x = LoadRun<L>(row.x + i, n);
    StoreRun(L::Mul(L::Mul(x, scale), LoadRun<L>(row.weight + i, n)), y + i, n);
  });
}

template <class L>
void RmsNormPrimitive(const NormRow& row) {
  if (row.y_dtype == DType::kF32) {
    NormRowTo<L>(row, static_cast<float*>(row.y));
  } else {
    NormRowTo<L>(row, static_cast<BF16*>(row.y));
  }
}

template <class L>
void RopePrimitive(const RopeRow& row) {
  for (int64_t head = 0; head < row.heads; ++head) {
    float* first = row.x + head * 2 * row.half;
    float* second = first + row.half;
    ForRuns(row.half, [&](int64_t i, int n) {
      const L a = LoadRun<L>(first + i, n), b = LoadRun<L>(second + i, n);
      const L cos = LoadRun<L>(row.cos + i, n), sin = LoadRun<L>(row.sin + i, n);
      StoreRun(L::Fma(a, cos, L::Negate(L::Mul(b, sin))), first + i, n);
      StoreRun(L::Fma(b, cos, L::Mul(a, sin)), second + i, n);
    });
  }
}

template <class L>
void SwiGluPrimitive(const float* gate_up, int64_t width, float* out) {
  ForRuns(width, [&](int64_t i, int n) {
    const L gate = L::Load(gate_up + 2 * i), up = L::Load(gate_up + 2 * i + 16);
    StoreRun(L::Mul(SiluLanes(gate), up), out + i, n);
  });
}

template <class L, class R>
[[gnu::always_inline]] inline void CombineRowOf(const CombineRow& row) {
  ForRuns(row.width, [&](int64_t i, int n) {
    L acc = L::Zero();
    for (int64_t e = 0; e < row.count; ++e) {
      const R* from = static_cast<const R*>(row.rows[e]) + i;
      acc = L::Fma(L::Set(row.weights[e]), LoadRun<L>(from, n), acc);
    }
    StoreRun(L::Add(LoadRun<L>(row.residual + i, n), acc), row.residual + i, n);
  });
}

template <class L>
void CombinePrimitive(const CombineRow& row) {
  if (row.dtype == DType::kF32) {
    CombineRowOf<L, float>(row);
  } else {
    CombineRowOf<L, BF16>(row);
  }
}

template <class L, class From, class To>
[[gnu::always_inline]] inline void ConvertRow(const From* src, int64_t width, To* dst) {
  ForRuns(width, [&](int64_t i, int n) { StoreRun(LoadRun<L>(src + i, n), dst + i, n); });
}

template <class L>
void WidenPrimitive(const void* src, DType dtype, int64_t width, float* dst) {
  if (dtype == DType::kF32) {
    ConvertRow<L>(static_cast<const float*>(src), width, dst);
  } else {
    ConvertRow<L>(static_cast<const BF16*>(src), width, dst);
  }
}

template <class L>
void RoundPrimitive(const float* src, int64_t width, DType dtype, void* dst) {
  if (dtype == DType::kF32) {
    ConvertRow<L>(src, width, static_cast<float*>(dst));
  } else {
    ConvertRow<L>(src, width, static_cast<BF16*>(dst));
  }
}

template <class L>
double ExpSumPrimitive(const ExpSumRow& row) {
  constexpr int64_t kRun = 4096;
  const L shift = L::Set(row.shift), factor = L::Set(row.factor);
  double total = 0;
  for (int64_t run = 0; run < row.count; run += kRun) {
    L lanes = L::Zero();
    const int64_t left = row.count - run;
    ForRuns(left < kRun ? left : kRun, [&](int64_t i, int n) {
      const L x = L::Sub(LoadRun<L>(row.x + run + i, n), shift);
      const L term = L::Select(L::First(n), ExpLanes(L::Mul(x, factor)), L::Zero());
      lanes = L::Add(lanes, term);
      if (row.terms != nullptr) StoreRun(term, row.terms + run + i, n);
    });
    total += static_cast<double>(L::TreeSum(lanes));
  }
  return total;
}

template <class L>
RowMax RowMaxPrimitive(const float* x, int64_t count) {
  const L inf = L::Set(__builtin_inff());
  L max = L::Negate(inf);
  bool bad = false;
  ForRuns(count, [&](int64_t i, int n) {
    const L value = L::Select(L::First(n), LoadRun<L>(x + i, n), L::Negate(inf));
    bad = bad || L::Any(L::NotBelow(value, inf));
    max = L::Max(value, max);
  });
  return {L::TreeMax(max), bad};
}

}  // namespace bottega
