#pragma once

#include "core/kernels/cpu/lane_math.h"
#include "core/kernels/cpu/primitives.h"
#include "core/tensor/bf16.h"

// One token's query heads against one kv head, block by block (order: attention.h). H heads go
// together: each K and V vector is read and widened once for all of them, and H independent fma
// chains hide the latency of one (8 for AVX-512; 4 x 2 registers for AVX2). How many go together
// cannot change a head's bytes. While a block is folded the next one is prefetched: a kv head's
// part of a block is a page or less, too short for the machine's own prefetcher.

namespace bottega {

template <int H>
struct FoldState {
  float max[H];
  float sum[H];
  float correction[H];
  float p[H][16];
};

// Scores of one block, then m, l, c and p of each head. visible: positions of the block that the
// token sees; bytes of the others are loaded but replaced before anything depends on them.
template <class L, class R, int H>
[[gnu::always_inline]] inline void FoldScores(const AttendRun& run, const float* q, const R* keys,
                                              const R* next_keys, int visible,
                                              FoldState<H>& state) {
  L acc[H];
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h) acc[h] = L::Zero();
  for (int64_t d = 0; d < run.head_dim; ++d) {
    const L key = L::Load(keys + d * 16);
    __builtin_prefetch(next_keys + d * 16);
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) acc[h] = L::Fma(L::Set(q[h * run.head_dim + d]), key, acc[h]);
  }
  const typename L::Mask seen = L::First(visible);
  const L minus_inf = L::Set(-__builtin_inff());
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h) {
    const L s = L::Select(seen, L::Mul(acc[h], L::Set(run.scale)), minus_inf);
    const float block_max = L::TreeMax(s);
    const float old_max = state.max[h];
    const float new_max = old_max > block_max ? old_max : block_max;
    // Exp(0) is exactly 1: an unchanged maximum needs no exp.
    float correction = 1.0f;
    if (new_max != old_max) {
      float lanes[16];
      L::Store(ExpLanes(L::Set(old_max - new_max)), lanes);
      correction = lanes[0];
    }
    const L p = L::Select(seen, ExpLanes(L::Sub(s, L::Set(new_max))), L::Zero());
    state.max[h] = new_max;
    state.correction[h] = correction;
    state.sum[h] = __builtin_fmaf(state.sum[h], correction, L::TreeSum(p));
    L::Store(p, state.p[h]);
  }
}

// o = o * c + sum of p[j] V[j], 16 dimensions at a time.
template <class L, class R, int H>
[[gnu::always_inline]] inline void FoldValues(const AttendRun& run, const R* values,
                                              const R* next_values, int visible,
                                              const FoldState<H>& state, float* out) {
  for (int64_t d = 0; d < run.head_dim; d += 16) {
    const int64_t left = run.head_dim - d;
    const int n = left < 16 ? static_cast<int>(left) : 16;
    L o[H];
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      const float* from = out + h * run.head_dim + d;
      o[h] = L::Mul(n == 16 ? L::Load(from) : L::LoadFirst(from, n), L::Set(state.correction[h]));
    }
    for (int j = 0; j < visible; ++j) {
      const R* row = values + j * run.head_dim + d;
      __builtin_prefetch(next_values + j * run.head_dim + d);
      const L value = n == 16 ? L::Load(row) : L::LoadFirst(row, n);
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h) o[h] = L::Fma(L::Set(state.p[h][j]), value, o[h]);
    }
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      float* to = out + h * run.head_dim + d;
      n == 16 ? L::Store(o[h], to) : L::StoreFirst(o[h], to, n);
    }
  }
}

template <class L, class R, int H>
void AttendHeads(const AttendRun& run, const float* q, float* out) {
  FoldState<H> state;
  for (int h = 0; h < H; ++h) {
    state.max[h] = -__builtin_inff();
    state.sum[h] = 0.0f;
  }
  for (int64_t i = 0; i < H * run.head_dim; ++i) out[i] = 0.0f;
  const int32_t last = run.position / 16;
  for (int32_t b = 0; b <= last; ++b) {
    const int visible = b < last ? 16 : run.position % 16 + 1;
    const size_t at = static_cast<size_t>(run.blocks[b]) * run.block_stride_bytes;
    const size_t next =
        static_cast<size_t>(run.blocks[b < last ? b + 1 : b]) * run.block_stride_bytes;
    FoldScores<L, R, H>(run, q, reinterpret_cast<const R*>(run.keys + at),
                        reinterpret_cast<const R*>(run.keys + next), visible, state);
    FoldValues<L, R, H>(run, reinterpret_cast<const R*>(run.values + at),
                        reinterpret_cast<const R*>(run.values + next), visible, state, out);
  }
  for (int h = 0; h < H; ++h) {
    const L sum = L::Set(state.sum[h]);
    for (int64_t d = 0; d < run.head_dim; d += 16) {
      const int64_t left = run.head_dim - d;
      const int n = left < 16 ? static_cast<int>(left) : 16;
      float* at = out + h * run.head_dim + d;
      L::StoreFirst(L::Div(L::LoadFirst(at, n), sum), at, n);
    }
  }
}

template <class L, class R>
void AttendRunOf(const AttendRun& run) {
  int64_t head = 0;
  const auto step = [&]<int H>() {
    AttendHeads<L, R, H>(run, run.q + head * run.head_dim, run.out + head * run.head_dim);
    head += H;
  };
  while (run.heads - head >= L::kHeadsAtOnce) step.template operator()<L::kHeadsAtOnce>();
  if constexpr (L::kHeadsAtOnce > 4) {
    if (run.heads - head >= 4) step.template operator()<4>();
  }
  if (run.heads - head >= 2) step.template operator()<2>();
  if (run.heads - head >= 1) step.template operator()<1>();
}

template <class L>
void AttendPrimitive(const AttendRun& run) {
  if (run.dtype == DType::kF32) {
    AttendRunOf<L, float>(run);
  } else {
    AttendRunOf<L, BF16>(run);
  }
}

}  // namespace bottega
