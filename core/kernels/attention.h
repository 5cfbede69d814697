#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"
#include "core/tensor/dtype.h"

namespace bottega {

// Paged attention over blocks of 16 positions.

inline constexpr int32_t kKvBlockPositions = 16;

// One layer's part of a block: K for lanes over positions, then V.
//   K [kv_heads][head_dim][16]    V [kv_heads][16][head_dim]
struct KvLayout {
  DType dtype = DType::kBF16;  // the row type R; values are rounded to it when written
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // a multiple of 8
  constexpr size_t KeyBytes() const {
    return static_cast<size_t>(kv_heads * head_dim * kKvBlockPositions) * SizeOf(dtype);
  }
  constexpr size_t BlockBytes() const { return 2 * KeyBytes(); }  // one block of one layer
};

// One layer of the pool: block b starts at base + b * block_stride_bytes. Blocks of a layer side by
// side, or layers of a block side by side: the owner of the pool chooses by base and stride.
struct KvLayer {
  std::byte* base = nullptr;
  size_t block_stride_bytes = 0;
  KvLayout layout;
};

// Where a token's key and value live.
struct KvSlot {
  int32_t block;
  int32_t offset;  // [0, 16)
};

struct WriteKvArgs {
  const float* k = nullptr;        // [tokens, kv_heads, head_dim], after norm and rope
  const float* v = nullptr;        // the same
  int64_t stride = 0;              // floats between tokens, in k and in v
  absl::Span<const KvSlot> slots;  // [tokens], no two alike
  KvLayer layer;
};
void WriteKv(const Cpu& cpu, const WriteKvArgs& args);

// A query token: it sees positions 0..position of its own sequence. Position p lies in block
// blocks[p / 16] at offset p mod 16; blocks has at least position / 16 + 1 entries.
struct AttendToken {
  int32_t position;
  const int32_t* blocks;
};

// So many tokens of a sequence, at most, that follow each other read its KV together.
inline constexpr int64_t kAttendTokensTogether = 16;

// out[t][h] = softmax(scale * q[t][h] . K) V over the positions that token t sees; query head h
// reads kv head h / (heads / kv_heads). Everything f32 after reading K and V back from R.
//
// Order, for one (token, head), from m = -inf, l = +0, o = +0, over its blocks ascending:
//   s[j]  = scale * (acc over d ascending from +0 of fma(q[d], K[d][j], acc))
//   m'    = max(m, tree max of the visible s[j])     tree: j with j+8, then j+4, j+2, j+1
//   c     = Exp(m - m'),  p[j] = Exp(s[j] - m'), 0 if j is past the token's position
//   l     = fma(l, c, tree sum of p)
//   o[d]  = o[d] * c, then for visible j ascending: o[d] = fma(p[j], V[j][d], o[d])
// and out[d] = o[d] / l at the end. A token's bytes depend on its own q and the KV it sees only, so
// decode equals prefill in any chunks. Positions past the token's own contribute nothing whatever
// bytes lie there (NaN patterns included).
struct AttendArgs {
  const float* q = nullptr;  // [tokens, heads, head_dim], rows q_stride floats apart
  int64_t q_stride = 0;
  int64_t heads = 0;  // a multiple of kv_heads
  float scale = 0;
  absl::Span<const AttendToken> tokens;
  int64_t first_kv_head = 0;  // those whose query heads are computed now
  int64_t kv_heads = 0;       // 0: all from the first on
  KvLayer layer;
  float* out = nullptr;  // [tokens, heads, head_dim], rows out_stride floats apart
  int64_t out_stride = 0;
};
void Attend(const Cpu& cpu, const AttendArgs& args);

}  // namespace bottega
