#pragma once

#include "core/kernels/cpu/lane_math.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_lanes.h"
#include "core/tensor/bf16.h"

// Products of quantised rows and matrices (core/kernels/quantised.h), over Dots<L> and L.
//
// The loops, outside in: weight group of k, block of up to 8 rows. A weight group of a panel is 5.8
// KB or less: it comes from memory once, by one stream, and lies in L1 while all rows of the item
// use it. The price is that sums in f32 live in memory between groups (12 KB for 64 rows, L1 too):
// a load, a conversion, two multiplications and a store for every 30 dot products of a lane.
//
// While a group is multiplied, the next one is fetched, a part with each block: the stream is slow
// (a line in 40 cycles for 64 rows), and the machine's own prefetcher stops at every page. Without
// it 64 rows ran at 0.6 and 16 rows at 0.65 of their speed (Zen 5, int8).

namespace bottega {

inline constexpr int kQuantisedBlockRows = 8;

// One weight group of a panel and of all its rows.
struct QuantisedStep {
  const uint8_t* values;  // [quads][T][64], or two quads to a byte
  bool packed;            // they are, and Dots<L>::RunPacked reads them
  const BF16* scales;     // [T][16]
  int64_t quads;          // of k
  const int8_t* x;        // [rows], x_stride bytes apart
  int64_t x_stride;
  const float* x_scales;  // [rows], scale_stride apart
  int64_t scale_stride;
  const int32_t* offsets;  // [rows], offset_stride apart
  int64_t offset_stride;
};

template <class L, int R, int T>
void QuantisedBlock(const QuantisedStep& s, int64_t row, float* acc) {
  L sums[R][T];
  const int8_t* x = s.x + row * s.x_stride;
  const int32_t* offsets = s.offsets + row * s.offset_stride;
  bool packed = false;
  if constexpr (R <= Dots<L>::kPackedRows) {
    packed = s.packed;
    if (packed) {
      Dots<L>::template RunPacked<R, T>(s.values, x, s.x_stride, s.quads, offsets, s.offset_stride,
                                        sums);
    }
  }
  if (!packed) {
    Dots<L>::template Run<R, T>(s.values, x, s.x_stride, s.quads, offsets, s.offset_stride, sums);
  }
  L scale[T];
#pragma GCC unroll 4
  for (int t = 0; t < T; ++t) scale[t] = L::Load(s.scales + t * 16);
  const float* x_scales = s.x_scales + row * s.scale_stride;
  acc += row * T * 16;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const L x_scale = L::Set(x_scales[r * s.scale_stride]);
#pragma GCC unroll 4
    for (int t = 0; t < T; ++t) {
      float* to = acc + (r * T + t) * 16;
      L::Store(L::Fma(sums[r][t], L::Mul(x_scale, scale[t]), L::Load(to)), to);
    }
  }
}

// `next`: [blocks of rows][fetch] bytes that will be read soon.
template <class L, int T>
void QuantisedBlocks(const QuantisedStep& s, int64_t rows, float* acc, const uint8_t* next,
                     int64_t fetch) {
  int64_t row = 0;
  const auto step = [&]<int R>() {
    for (int64_t i = 0; i < fetch; i += 64) __builtin_prefetch(next + i);
    next += fetch;
    QuantisedBlock<L, R, T>(s, row, acc);
    row += R;
  };
  while (rows - row >= kQuantisedBlockRows) step.template operator()<kQuantisedBlockRows>();
  switch (rows - row) {
    case 7:
      return step.template operator()<7>();
    case 6:
      return step.template operator()<6>();
    case 5:
      return step.template operator()<5>();
    case 4:
      return step.template operator()<4>();
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
  alignas(64) uint8_t unpacked[kQuantisedGroupMax * 16 * T];
  for (int64_t i = 0; i < p.rows * T; ++i) L::Store(L::Zero(), acc + i * 16);
  const int64_t groups = p.k / p.group, parts = p.group / p.weight_group;
  const int64_t scale_bytes = (parts * T * 32 + 63) / 64 * 64;
  const int64_t part_bytes = p.weight_group * T * (p.int4 ? 8 : 16);
  const int64_t group_bytes = scale_bytes + parts * part_bytes;
  const int64_t blocks = parts * ((p.rows + kQuantisedBlockRows - 1) / kQuantisedBlockRows);
  const int64_t fetch = (group_bytes / blocks + 63) / 64 * 64;
  const bool packed = p.int4 && p.rows <= Dots<L>::kPackedRows;
  for (int64_t group = 0; group < groups; ++group) {
    const uint8_t* const at = p.w + group * group_bytes;
    for (int64_t part = 0; part < parts; ++part) {
      const uint8_t* values = at + scale_bytes + part * part_bytes;
      if (p.int4 && !packed) {
        for (int64_t pair = 0; pair < p.weight_group / 8; ++pair) {
#pragma GCC unroll 4
          for (int t = 0; t < T; ++t) {
            uint8_t* to = unpacked + (2 * pair * T + t) * 64;
            Dots<L>::Unpack(values + (pair * T + t) * 64, to, to + T * 64);
          }
        }
        values = unpacked;
      }
      QuantisedBlocks<L, T>({.values = values,
                             .packed = packed,
                             .scales = reinterpret_cast<const BF16*>(at) + part * T * 16,
                             .quads = p.weight_group / 4,
                             .x = p.x + group * p.group + part * p.weight_group,
                             .x_stride = p.k,
                             .x_scales = p.x_scales + group,
                             .scale_stride = groups,
                             .offsets = p.x_offsets + group * parts + part,
                             .offset_stride = groups * parts},
                            p.rows, acc, at + group_bytes + part * (fetch * (blocks / parts)),
                            fetch);
    }
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
