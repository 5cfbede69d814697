#pragma once

#include "core/kernels/cpu/lane_math.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_lanes.h"
#include "core/tensor/bf16.h"

// Products of quantised rows and matrices (core/kernels/quantised.h), over Dots<L> and L.
//
// The loops, outside in: a turn of some activation groups of k, block of 4 rows, weight group. The
// weights of a turn come from memory once, by one stream, and lie in L1 while all rows of the item
// use them. A block's sums over groups are in registers during a turn, and in memory (12 KB for 64
// rows, L1 too) between turns: kept in memory between groups, with 8 rows a block, a fold was a
// load, a conversion, two multiplications and a store for every 18 dot products of a lane (10 in
// int4), and 64 rows ran at 0.77 (0.65) of the peak from L2; now at 0.83 (0.74), Zen 5. With
// everything in L1 and nothing to unpack it is 0.91 (0.88).
//
// During a turn the next one is fetched, a part with each weight group of each block: the stream is
// slow (a line in 40 cycles for 64 rows), and the machine's own prefetcher stops at every page.
// Without it 64 rows ran at 0.6 and 16 rows at 0.65 of their speed.

namespace bottega {

// Inputs of a turn at most: 144 of 48 outputs are 7 KB of weights. Turns of 360 were no faster.
inline constexpr int64_t kQuantisedTurn = 144;
static_assert(kQuantisedTurn >= kQuantisedGroupMax);

// A turn of a panel, for all its rows.
struct QuantisedStep {
  int64_t groups;  // activation groups
  int64_t parts;   // weight groups of one
  int64_t quads;   // of a weight group
  // Of the first group: bf16 [parts][T][16] and [parts][quads][T][64], or two quads to a byte. From
  // the end of a group's to the next one's: the gaps, in bytes.
  const uint8_t* scales;
  int64_t scale_gap;
  const uint8_t* values;
  int64_t value_gap;
  const int8_t* x;  // [rows], x_stride bytes apart
  int64_t x_stride;
  const float* x_scales;  // [rows], x_groups apart
  int64_t x_groups;
  const int32_t* offsets;  // [rows], x_groups * parts apart
  const uint8_t* next;     // [blocks][groups * parts][fetch] bytes that will be read soon
  int64_t fetch;
};

// Packed: values lie two quads to a byte.
template <class L, int R, int T, bool kPacked>
void QuantisedBlock(const QuantisedStep& s, int64_t row, float* acc) {
  const int64_t offset_stride = s.x_groups * s.parts;
  const int64_t part_bytes = s.quads * T * (kPacked ? 32 : 64);
  const int8_t* x = s.x + row * s.x_stride;
  const float* x_scales = s.x_scales + row * s.x_groups;
  const int32_t* offsets = s.offsets + row * offset_stride;
  const uint8_t* values = s.values;
  const uint8_t* scales = s.scales;
  const uint8_t* next = s.next + row / kQuantisedBlockRows * s.groups * s.parts * s.fetch;
  acc += row * T * 16;
  L total[R][T];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) total[r][t] = L::Load(acc + (r * T + t) * 16);
  }
  for (int64_t left = s.groups * s.parts, part = 0; left > 0; --left) {
    for (int64_t i = 0; i < s.fetch; i += 64) __builtin_prefetch(next + i);
    next += s.fetch;
    L sums[R][T];
    if constexpr (kPacked) {
      Dots<L>::template RunPacked<R, T>(values, x, s.x_stride, s.quads, offsets, offset_stride,
                                        sums);
    } else {
      Dots<L>::template Run<R, T>(values, x, s.x_stride, s.quads, offsets, offset_stride, sums);
    }
    L scale[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      scale[t] = L::Load(reinterpret_cast<const BF16*>(scales + t * 32));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const L x_scale = L::Set(x_scales[r * s.x_groups]);
#pragma GCC unroll 4
      for (int t = 0; t < T; ++t) {
        total[r][t] = L::Fma(sums[r][t], L::Mul(x_scale, scale[t]), total[r][t]);
      }
    }
    x += 4 * s.quads;
    ++offsets;
    values += part_bytes;
    scales += T * 32;
    if (++part == s.parts) {
      part = 0;
      ++x_scales;
      values += s.value_gap;
      scales += s.scale_gap;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) L::Store(total[r][t], acc + (r * T + t) * 16);
  }
}

template <class L, int T, bool kPacked>
void QuantisedBlocks(const QuantisedStep& s, int64_t rows, float* acc) {
  int64_t row = 0;
  const auto step = [&]<int R>() {
    QuantisedBlock<L, R, T, kPacked>(s, row, acc);
    row += R;
  };
  while (rows - row >= kQuantisedBlockRows) step.template operator()<kQuantisedBlockRows>();
  switch (rows - row) {
    case 3:
      return step.template operator()<3>();
    case 2:
      return step.template operator()<2>();
    case 1:
      return step.template operator()<1>();
    default:
      return;
  }
}

// [quads / 2][T][64] of two quads to a byte become [quads][T][64].
template <class L, int T>
[[gnu::always_inline]] inline void UnpackGroup(const uint8_t* from, int64_t inputs, uint8_t* to) {
  for (int64_t pair = 0; pair < inputs / 8; ++pair) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      uint8_t* low = to + (2 * pair * T + t) * 64;
      Dots<L>::Unpack(from + (pair * T + t) * 64, low, low + T * 64);
    }
  }
}

// Where the finished sums of a tile go.
template <class L>
[[gnu::always_inline]] inline void StoreTile(const QuantisedPanel& p, L sum, int64_t row,
                                             int64_t tile) {
  if (p.up != nullptr) {
    const int64_t at = row * p.y_stride + tile * 8;
    L::StoreHalves(sum, p.y + at, p.up + at);
    return;
  }
  const int64_t left = p.columns - tile * 16;
  const int real = left < 16 ? static_cast<int>(left) : 16;
  float* y = p.y + row * p.y_stride + tile * 16;
  StoreRun(p.add ? L::Add(LoadRun<L>(y, real), sum) : sum, y, real);
}

template <class L, int T>
void QuantisedPanelTiles(const QuantisedPanel& p) {
  alignas(64) float acc[kQuantisedRowsMax * T * 16];
  alignas(64) uint8_t unpacked[kQuantisedTurn * 16 * T];
  for (int64_t i = 0; i < p.rows * T; ++i) L::Store(L::Zero(), acc + i * 16);
  const int64_t groups = p.k / p.group, parts = p.group / p.weight_group;
  const int64_t scale_bytes = (parts * T * 32 + 63) / 64 * 64;
  const int64_t value_bytes = p.group * T * (p.int4 ? 8 : 16);
  const int64_t group_bytes = scale_bytes + value_bytes;
  const int64_t turn = kQuantisedTurn / p.group;
  const int64_t blocks = (p.rows + kQuantisedBlockRows - 1) / kQuantisedBlockRows;
  const int64_t fetch = (group_bytes / (parts * blocks) + 63) / 64 * 64;
  const bool packed = p.int4 && p.rows <= Dots<L>::kPackedRows;
  const bool unpack = p.int4 && !packed;
  for (int64_t group = 0; group < groups; group += turn) {
    const uint8_t* const at = p.w + group * group_bytes;
    const int64_t count = groups - group < turn ? groups - group : turn;
    for (int64_t g = 0; unpack && g < count; ++g) {
      UnpackGroup<L, T>(at + g * group_bytes + scale_bytes, p.group,
                        unpacked + g * p.group * T * 16);
    }
    const QuantisedStep step{.groups = count,
                             .parts = parts,
                             .quads = p.weight_group / 4,
                             .scales = at,
                             .scale_gap = group_bytes - parts * T * 32,
                             .values = unpack ? unpacked : at + scale_bytes,
                             .value_gap = unpack ? 0 : scale_bytes,
                             .x = p.x + group * p.group,
                             .x_stride = p.k,
                             .x_scales = p.x_scales + group,
                             .x_groups = groups,
                             .offsets = p.x_offsets + group * parts,
                             .next = at + turn * group_bytes,
                             .fetch = fetch};
    if constexpr (Dots<L>::kPackedRows > 0) {
      if (packed) {
        QuantisedBlocks<L, T, true>(step, p.rows, acc);
        continue;
      }
    }
    QuantisedBlocks<L, T, false>(step, p.rows, acc);
  }
  for (int64_t row = 0; row < p.rows; ++row) {
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) StoreTile(p, L::Load(acc + (row * T + t) * 16), row, t);
  }
}

template <class L>
void QuantisedPanelPrimitive(const QuantisedPanel& p) {
  switch (p.tiles) {
    case 1:
      return QuantisedPanelTiles<L, 1>(p);
    case 2:
      return QuantisedPanelTiles<L, 2>(p);
    default:
      return QuantisedPanelTiles<L, 3>(p);
  }
}

template <class L, class X>
[[gnu::always_inline]] inline void QuantiseRowOf(const QuantiseRow& row) {
  const X* x = static_cast<const X*>(row.x);
  const L magic = L::Set(0x1.8p+23f);  // added and taken away: rounds to the nearest integer, even
  const L inf = L::Set(__builtin_inff());
  int64_t part = 0;
  for (int64_t group = 0; group < row.width / row.group; ++group) {
    const X* from = x + group * row.group;
    int8_t* to = row.values + group * row.group;
    L largest = L::Zero();
    bool bad = false;
    ForRuns(row.group, [&](int64_t i, int n) {
      const L value = LoadRun<L>(from + i, n);
      const L magnitude = L::Max(value, L::Negate(value));
      bad = bad || L::Any(L::NotBelow(magnitude, inf));
      largest = L::Max(magnitude, largest);
    });
    const float max = L::TreeMax(largest);
    const bool tiny = max < 0x1p-100f;
    const L factor = L::Set(bad || tiny ? 0.0f : 127.0f / max);
    row.scales[group] = bad ? __builtin_nanf("") : tiny ? 0.0f : max / 127.0f;
    for (int64_t at = 0; at < row.group; at += row.weight_group, ++part) {
      L sum = L::Zero();  // integers below 2^24: exact in any order
      ForRuns(row.weight_group, [&](int64_t i, int n) {
        L scaled = L::Mul(LoadRun<L>(from + at + i, n), factor);
        if (bad) scaled = L::Zero();
        const L value = L::Sub(L::Add(scaled, magic), magic);
        sum = L::Add(sum, value);
        L::StoreInt8(value, to + at + i, n);
      });
      row.offsets[part] = -row.zero_point * static_cast<int32_t>(L::TreeSum(sum));
    }
  }
}

template <class L>
void QuantiseRowPrimitive(const QuantiseRow& row) {
  if (row.dtype == DType::kF32) {
    QuantiseRowOf<L, float>(row);
  } else {
    QuantiseRowOf<L, BF16>(row);
  }
}

template <class L>
void GatedPrimitive(const float* gate, const float* up, int64_t width, float* out) {
  ForRuns(width, [&](int64_t i, int n) {
    StoreRun(L::Mul(SiluLanes(LoadRun<L>(gate + i, n)), LoadRun<L>(up + i, n)), out + i, n);
  });
}

}  // namespace bottega
