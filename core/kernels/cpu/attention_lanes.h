#pragma once

#include "core/kernels/cpu/lane_math.h"
#include "core/kernels/cpu/primitives.h"
#include "core/tensor/bf16.h"

// The query heads of some tokens of a sequence against one kv head, block by block (order:
// attention.h). H heads go together: each K and V vector is read and widened once for all of them.
// How many go together cannot change a head's bytes, nor can how many tokens do: each folds its own
// blocks in order. Tokens of a prompt take turns at each fold of blocks, so that the KV of a long
// context comes from memory once for up to 16 of them, and from L2 (a fold of 128 dimensions is 32
// KB) for the others.
//
// Blocks are folded four at a time: first the scores, L::kScoreBlocks blocks at once, and each
// block's max, correction and probabilities in order; then the values, L::kValueRuns runs of 16
// dimensions at once, which stay in registers for the four blocks (a store of 64 bytes takes as
// long as four fmas, and was a quarter of the time). For AVX-512 that makes 8 heads x 2 = 16
// independent fma chains where 8 only just cover the latency, and 10 loads for 16 fmas; AVX2 has
// registers for 4 heads of two registers. Meanwhile the next four blocks are prefetched: a kv
// head's part of a block is a page or less, too short for the machine's own prefetcher.

namespace bottega {

inline constexpr int kFoldBlocks = 4;

template <class R, int H>
struct FoldState {
  int blocks;                    // of this fold
  const R* keys[kFoldBlocks];    // [head_dim][16]
  const R* values[kFoldBlocks];  // [16][head_dim]
  const R* next_keys[kFoldBlocks];
  const R* next_values[kFoldBlocks];
  int visible[kFoldBlocks];  // positions that the token sees
  float correction[kFoldBlocks][H];
  float p[kFoldBlocks][H][16];
};

// What a token keeps from fold to fold, beside its sums of values.
template <int H>
struct RunningSoftmax {
  float max[H];
  float sum[H];
};

// max, sum, correction and p of each head from the dot products of block `b`. Bytes of positions
// that the token does not see were loaded, but are replaced before anything depends on them.
template <class L, class R, int H>
[[gnu::always_inline]] inline void FoldScores(const AttendRun& run, const L (&dots)[H], int b,
                                              FoldState<R, H>& state, RunningSoftmax<H>& running) {
  const typename L::Mask seen = L::First(state.visible[b]);
  const L minus_inf = L::Set(-__builtin_inff());
#pragma GCC unroll 8
  for (int h = 0; h < H; ++h) {
    const L s = L::Select(seen, L::Mul(dots[h], L::Set(run.scale)), minus_inf);
    const float block_max = L::TreeMax(s);
    const float old_max = running.max[h];
    const float new_max = old_max > block_max ? old_max : block_max;
    // Exp(0) is exactly 1: an unchanged maximum needs no exp.
    float correction = 1.0f;
    if (new_max != old_max) {
      float lanes[16];
      L::Store(ExpLanes(L::Set(old_max - new_max)), lanes);
      correction = lanes[0];
    }
    const L p = L::Select(seen, ExpLanes(L::Sub(s, L::Set(new_max))), L::Zero());
    running.max[h] = new_max;
    state.correction[b][h] = correction;
    running.sum[h] = __builtin_fmaf(running.sum[h], correction, L::TreeSum(p));
    L::Store(p, state.p[b][h]);
  }
}

// Blocks [b, b + N) of the fold.
template <class L, class R, int H, int N>
[[gnu::always_inline]] inline void ScoreBlocks(const AttendRun& run, const float* q, int b,
                                               FoldState<R, H>& state, RunningSoftmax<H>& running) {
  constexpr int64_t kStep = 64 / (16 * sizeof(R));  // dimensions in a cache line of keys
  L dots[N][H];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) dots[n][h] = L::Zero();
  }
  // A loop of its own: with it inside, unrolled by the cache line, the compiler spilled sums.
  for (int n = 0; n < N; ++n) {
    for (int64_t d = 0; d < run.head_dim; d += kStep) {
      __builtin_prefetch(state.next_keys[b + n] + d * 16);
    }
  }
  for (int64_t d = 0; d < run.head_dim; ++d) {
    L key[N];
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) key[n] = L::Load(state.keys[b + n] + d * 16);
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      const L query = L::Set(q[h * run.head_dim + d]);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) dots[n][h] = L::Fma(query, key[n], dots[n][h]);
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) FoldScores<L, R, H>(run, dots[n], b + n, state, running);
}

// o = o * c + sum of p[j] V[j] over the blocks of the fold, for D runs of 16 dimensions from d on,
// the last of which has `width`.
template <class L, class R, int H, int D>
[[gnu::always_inline]] inline void FoldValues(const AttendRun& run, const FoldState<R, H>& state,
                                              int64_t d, int width, float* out) {
  const auto load = [&](const auto* from, int run16) {
    return run16 < D - 1 || width == 16 ? L::Load(from + run16 * 16)
                                        : L::LoadFirst(from + run16 * 16, width);
  };
  L o[D][H];
#pragma GCC unroll 4
  for (int i = 0; i < D; ++i) {
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) o[i][h] = load(out + h * run.head_dim + d, i);
  }
  for (int b = 0; b < state.blocks; ++b) {
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      const L correction = L::Set(state.correction[b][h]);
#pragma GCC unroll 4
      for (int i = 0; i < D; ++i) o[i][h] = L::Mul(o[i][h], correction);
    }
    const R* row = state.values[b] + d;
    const R* next = state.next_values[b] + d;
    for (int j = 0; j < state.visible[b]; ++j) {
      __builtin_prefetch(next + j * run.head_dim);
      L value[D];
#pragma GCC unroll 4
      for (int i = 0; i < D; ++i) value[i] = load(row + j * run.head_dim, i);
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h) {
        const L p = L::Set(state.p[b][h][j]);
#pragma GCC unroll 4
        for (int i = 0; i < D; ++i) o[i][h] = L::Fma(p, value[i], o[i][h]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < D; ++i) {
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h) {
      float* to = out + h * run.head_dim + d + i * 16;
      i < D - 1 || width == 16 ? L::Store(o[i][h], to) : L::StoreFirst(o[i][h], to, width);
    }
  }
}

// One token and the blocks of one fold; `first`: the first of them.
template <class L, class R, int H>
[[gnu::always_inline]] inline void FoldToken(const AttendRun& run, int64_t token, int32_t first,
                                             const float* q, FoldState<R, H>& state,
                                             RunningSoftmax<H>& running, float* out) {
  const int32_t position = run.positions[token], last = position / 16;
  state.blocks = last - first < kFoldBlocks ? last - first + 1 : kFoldBlocks;
  for (int b = 0; b < state.blocks; ++b) {
    state.visible[b] = first + b < last ? 16 : position % 16 + 1;
  }
  int b = 0;
  for (; b + L::kScoreBlocks <= state.blocks; b += L::kScoreBlocks) {
    ScoreBlocks<L, R, H, L::kScoreBlocks>(run, q, b, state, running);
  }
  for (; b < state.blocks; ++b) ScoreBlocks<L, R, H, 1>(run, q, b, state, running);
  int64_t d = 0;
  for (; d + L::kValueRuns * 16 <= run.head_dim; d += L::kValueRuns * 16) {
    FoldValues<L, R, H, L::kValueRuns>(run, state, d, 16, out);
  }
  for (; d < run.head_dim; d += 16) {
    const int64_t left = run.head_dim - d;
    FoldValues<L, R, H, 1>(run, state, d, left < 16 ? static_cast<int>(left) : 16, out);
  }
}

template <class L, class R, int H>
void AttendHeads(const AttendRun& run, const float* q, float* out) {
  FoldState<R, H> state;
  RunningSoftmax<H> running[kAttendTokensMax];
  int32_t last = 0;
  for (int64_t t = 0; t < run.tokens; ++t) {
    running[t] = {};
    for (int h = 0; h < H; ++h) running[t].max[h] = -__builtin_inff();
    for (int64_t i = 0; i < H * run.head_dim; ++i) out[t * run.out_stride + i] = 0.0f;
    last = run.positions[t] / 16 > last ? run.positions[t] / 16 : last;
  }
  for (int32_t first = 0; first <= last; first += kFoldBlocks) {
    for (int b = 0; b < kFoldBlocks && first + b <= last; ++b) {
      const int32_t block = first + b;
      const int32_t next = block + kFoldBlocks < last ? block + kFoldBlocks : last;
      const size_t at = static_cast<size_t>(run.blocks[block]) * run.block_stride_bytes;
      const size_t next_at = static_cast<size_t>(run.blocks[next]) * run.block_stride_bytes;
      state.keys[b] = reinterpret_cast<const R*>(run.keys + at);
      state.values[b] = reinterpret_cast<const R*>(run.values + at);
      state.next_keys[b] = reinterpret_cast<const R*>(run.keys + next_at);
      state.next_values[b] = reinterpret_cast<const R*>(run.values + next_at);
    }
    for (int64_t t = 0; t < run.tokens; ++t) {
      if (run.positions[t] / 16 < first) continue;
      FoldToken<L, R, H>(run, t, first, q + t * run.q_stride, state, running[t],
                         out + t * run.out_stride);
    }
  }
  for (int64_t t = 0; t < run.tokens; ++t) {
    for (int h = 0; h < H; ++h) {
      const L sum = L::Set(running[t].sum[h]);
      for (int64_t d = 0; d < run.head_dim; d += 16) {
        const int64_t left = run.head_dim - d;
        const int n = left < 16 ? static_cast<int>(left) : 16;
        float* at = out + t * run.out_stride + h * run.head_dim + d;
        L::StoreFirst(L::Div(L::LoadFirst(at, n), sum), at, n);
      }
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
