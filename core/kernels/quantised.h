#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"
#include "core/tensor/bf16.h"
#include "core/tensor/dtype.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// int8 and int4 matrices, and rows of activations quantised to meet them.
//
// A row of k inputs is cut into activation groups of G = QuantGroup(format, k) and weight groups
// of S = WeightGroup(format, k), S | G | k. With integers qx, qw and one scale a group,
//
//   x[i] ~ sx[i / G] * qx[i], qx in [-127, 127];   w[i] ~ sw[i / S] * qw[i],
//   qw in [-127, 127] (int8) or [-8, 7] (int4),
//
// every output is, over weight groups s ascending,
//
//   acc = +0;  acc = fma(float(sum of qx * qw over s), sx * sw, acc)
//
// The sum is exact in int32 (|sum| <= 128 * 127 * 127 < 2^24, so float() is exact too): any order
// of it gives the same bytes, and lanes may run over k there. The products of groups are folded in
// order. Activations: sx = max |x| / 127, qx = round_to_even(x * (127 / max |x|)), in f32.
//
// int8: the largest multiple of 8 up to 72 that divides k (72 for 2880 and 1080, 64 for 4096, 2048,
// 768): docs/decisions/0023 weighs accuracy, bytes and folds. int4: inputs up to 128 (120; 128),
// weights up to 40 (40; 32).

inline constexpr int64_t kQuantGroupMax = 128;
inline constexpr int64_t kQuantPanelTiles = 3;
// Magnitudes of weights are below it: products with their integers, and sums of those over a group,
// stay finite, and so do scales and what they give back. (Below its inverse they become zeros.)
inline constexpr float kQuantWeightMax = 0x1p+100f;

// The largest multiple of 8 up to `most` that divides k; 0: there is none.
constexpr int64_t LargestGroup(int64_t k, int64_t most) {
  for (int64_t group = most; group >= 8; group -= 8) {
    if (k % group == 0) return group;
  }
  return 0;
}
constexpr int64_t QuantGroup(WeightFormat format, int64_t k) {
  return LargestGroup(k, format == WeightFormat::kInt4 ? kQuantGroupMax : 72);
}
constexpr int64_t WeightGroup(WeightFormat format, int64_t k) {
  return format == WeightFormat::kInt4 ? LargestGroup(QuantGroup(format, k), 40)
                                       : QuantGroup(format, k);
}
// Weights are stored as qw + zero point, without a sign.
constexpr int32_t ZeroPoint(WeightFormat format) { return format == WeightFormat::kInt4 ? 8 : 128; }

// A stored byte whose weights are all 0.
constexpr uint8_t ZeroByte(WeightFormat format) {
  return format == WeightFormat::kInt4 ? 0x88 : 0x80;
}

// ---- Weights.
//
// Outputs lie in tiles of 16 lanes, tiles in panels of up to 3; a panel is one sequential stream,
//
//   for each activation group:  bf16 scales [G / S][tiles][16], padded to 64 bytes;
//     int8: [G / 4][tiles][16][4] bytes, four consecutive k of a lane together;
//     int4: [G / 8][tiles][16][4] bytes, low half: that quad of k, high half: the next one.
//
// so that one pass over memory feeds the dot product of four bytes a lane. A new panel begins after
// `span` tiles. A matrix of gate and up has 8 lanes of gate and the same 8 of up in a tile, and
// span = G / 8 tiles of the matrix that follows: a span of outputs is one group of its inputs, so
// SwiGLU and quantising again need nothing but what one thread has just computed.

struct QuantisedShape {
  WeightFormat format = WeightFormat::kInt8;
  int64_t n = 0;     // outputs; lanes past it are zero
  int64_t k = 0;     // inputs
  int64_t span = 0;  // tiles; 0: all of them

  constexpr int64_t tiles() const { return (n + 15) / 16; }
  constexpr int64_t span_tiles() const { return span == 0 ? tiles() : span; }
  constexpr int64_t spans() const { return tiles() == 0 ? 0 : (tiles() - 1) / span_tiles() + 1; }
  constexpr int64_t span_panels() const {
    return (span_tiles() + kQuantPanelTiles - 1) / kQuantPanelTiles;
  }
  constexpr int64_t group() const { return QuantGroup(format, k); }
  constexpr int64_t weight_group() const { return WeightGroup(format, k); }
  // Bytes of one activation group in a panel of `panel_tiles`: its scales, padded, then its values.
  constexpr size_t ScaleBytes(int64_t panel_tiles) const {
    return static_cast<size_t>((group() / weight_group() * panel_tiles * 16 * 2 + 63) / 64 * 64);
  }
  constexpr size_t ValueBytes(int64_t panel_tiles) const {
    return static_cast<size_t>(group() * panel_tiles * (format == WeightFormat::kInt4 ? 8 : 16));
  }
  constexpr size_t PanelBytes(int64_t panel_tiles) const {
    return static_cast<size_t>(k / group()) * (ScaleBytes(panel_tiles) + ValueBytes(panel_tiles));
  }
  // Where panel `panel` of a span begins, from the span's beginning.
  constexpr size_t PanelOffset(int64_t panel) const {
    return static_cast<size_t>(panel) * PanelBytes(kQuantPanelTiles);
  }
  constexpr int64_t PanelTiles(int64_t tiles_of_span, int64_t panel) const {
    const int64_t left = tiles_of_span - panel * kQuantPanelTiles;
    return left < kQuantPanelTiles ? left : kQuantPanelTiles;
  }
  constexpr size_t SpanBytes(int64_t tiles_of_span) const {
    const int64_t whole = tiles_of_span / kQuantPanelTiles, rest = tiles_of_span % kQuantPanelTiles;
    return PanelOffset(whole) + (rest == 0 ? 0 : PanelBytes(rest));
  }
  constexpr size_t bytes() const {
    const int64_t whole = tiles() / span_tiles(), rest = tiles() % span_tiles();
    return static_cast<size_t>(whole) * SpanBytes(span_tiles()) + SpanBytes(rest);
  }
};

// Calls visit(first output, tiles) for every panel, in the order in which they are stored.
template <class Visit>
void ForEachPanel(const QuantisedShape& shape, const Visit& visit) {
  for (int64_t first = 0; first < shape.tiles(); first += shape.span_tiles()) {
    const int64_t left = shape.tiles() - first;
    const int64_t span_tiles = left < shape.span_tiles() ? left : shape.span_tiles();
    for (int64_t tile = 0; tile < span_tiles; tile += kQuantPanelTiles) {
      visit((first + tile) * 16, shape.PanelTiles(span_tiles, tile / kQuantPanelTiles));
    }
  }
}

// The shape of gate and up of an expert of `width`: [2 * width, hidden], spans as above. `width`
// and `hidden` are multiples of 8.
constexpr QuantisedShape GateUpShape(WeightFormat format, int64_t width, int64_t hidden) {
  return {.format = format, .n = 2 * width, .k = hidden, .span = QuantGroup(format, width) / 8};
}

// row(i, out): the f32 values [k] of output i; i in [0, n), each asked for once, ascending within a
// panel. For gate and up, outputs in the order of the lanes: GateUpRow says which they are.
// int8: scale = max |w| / 127 rounded up to bf16. int4: the bf16 scale with the least squared error
// among those tried. Bytes depend on the values only. Any magnitude must be below kQuantWeightMax.
using WeightRow = absl::FunctionRef<void(int64_t row, float* out)>;
void PackQuantised(const QuantisedShape& shape, WeightRow row, std::byte* dst);

// Output `i` of a gate-and-up matrix: row `row` of up, or else of gate.
struct GateUpRow {
  bool up;
  int64_t row;
  static constexpr GateUpRow Of(int64_t i) { return {i % 16 >= 8, i / 16 * 8 + i % 8}; }
};

// Rows of a table that is read by row (the embedding): values [k] (int4: two to a byte, low half
// first), then bf16 scales [k / S], padded to 64 bytes. Quantised as above.
constexpr int64_t QuantisedTableValueBytes(WeightFormat format, int64_t k) {
  return format == WeightFormat::kInt4 ? k / 2 : k;
}
constexpr size_t QuantisedTableRowBytes(WeightFormat format, int64_t k) {
  const int64_t values = QuantisedTableValueBytes(format, k);
  return static_cast<size_t>((values + k / WeightGroup(format, k) * 2 + 63) / 64 * 64);
}
void QuantiseTableRow(WeightFormat format, absl::Span<const float> row, std::byte* dst);
void ReadTableRow(WeightFormat format, const std::byte* src, absl::Span<float> row);

// dst[i] = row index[i] of the table. The embedding lookup.
struct GatherTableArgs {
  const std::byte* table = nullptr;
  WeightFormat format{};
  absl::Span<const int32_t> index;  // [rows]; the caller has checked the range
  int64_t width = 0;
  float* dst = nullptr;  // [rows, width]
};
void GatherTable(const Cpu& cpu, const GatherTableArgs& args);

// ---- Activations.

// Views of quantised rows, one after the other.
struct QuantisedRows {
  int8_t* values = nullptr;    // [rows, k]
  float* scales = nullptr;     // [rows, k / G]
  int32_t* offsets = nullptr;  // [rows, k / S]: -zero point * sum of the group's values
  WeightFormat format{};       // of the weights that they will meet
  int64_t k = 0;

  int64_t groups() const { return k / QuantGroup(format, k); }
  int64_t weight_groups() const { return k / WeightGroup(format, k); }
  QuantisedRows From(int64_t row) const {
    return {values + row * k, scales + row * groups(), offsets + row * weight_groups(), format, k};
  }

  // In memory of Bytes(), aligned to 64.
  static size_t Bytes(WeightFormat format, int64_t rows, int64_t k);
  static QuantisedRows In(void* memory, WeightFormat format, int64_t rows, int64_t k);
};

// A group with a NaN or an infinity gets the scale NaN: its outputs are NaN. A group whose largest
// magnitude is below 2^-100 becomes zeros.
struct QuantiseArgs {
  const void* x = nullptr;  // [rows, k] of dtype, rows x_stride elements apart; or null and
  absl::Span<const std::byte* const> x_rows;  // [rows] of dtype, each anywhere
  DType dtype = DType::kF32;
  int64_t x_stride = 0;
  int64_t rows = 0;
  QuantisedRows to;
};
void Quantise(const Cpu& cpu, const QuantiseArgs& args);

// ---- Products.

struct QuantisedMatrix {
  const std::byte* data = nullptr;  // aligned to 64
  QuantisedShape shape;
};

struct QuantisedMatMulArgs {
  QuantisedRows x;  // [m, k]
  int64_t m = 0;
  QuantisedMatrix w;
  float* y = nullptr;  // [m, n], rows y_stride floats apart
  int64_t y_stride = 0;
  bool add = false;  // y = y + acc, one addition at the end
};
// Independent products in one parallel region. m == 0 is allowed.
void QuantisedMatMulGroup(const Cpu& cpu, absl::Span<const QuantisedMatMulArgs> group);

// out = quantised(silu(gate x) * (up x)), silu and the product in f32 as core/kernels/swiglu.h.
struct QuantisedGateUpArgs {
  QuantisedRows x;  // [m, hidden]
  int64_t m = 0;
  QuantisedMatrix w;  // GateUpShape
  QuantisedRows out;  // [m, width]
};
void QuantisedGateUpGroup(const Cpu& cpu, absl::Span<const QuantisedGateUpArgs> group);

}  // namespace bottega
