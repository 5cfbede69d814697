#pragma once

#include <cstddef>
#include <cstdint>

#include "core/tensor/dtype_id.h"

namespace bottega {

// The inner loops, one set per instruction set, chosen once per operator call. Arguments are plain
// (pointers and sizes already checked by the operator). Contracts are in the operator's header.

// Columns of a matmul work unit: 4 tiles of 16.
inline constexpr int64_t kPanelTiles = 4;

struct MatMulPanel {
  const float* x;  // [rows, k]
  int64_t x_stride;
  int64_t rows;
  const void* w;  // [tiles][k][16]
  DType dtype;
  int64_t k;
  int64_t columns;  // 1..64: real ones; tiles = ceil(columns / 16)
  float* y;         // [rows, columns]
  int64_t y_stride;
  bool add;
};

// Rows of a quantised work unit at most, and inputs of a group at most. 96 rows hold what an expert
// gets of a chunk of 512 tokens (64 on average), and their sums (18 KB), inputs (14) and weights
// (7) of a turn fit the 48 KB of an L1 and, of 64 rows, almost 32.
inline constexpr int64_t kQuantisedRowsMax = 96;
inline constexpr int64_t kQuantisedGroupMax = 128;
inline constexpr int kQuantisedBlockRows = 4;  // rows that are multiplied together

struct QuantisedPanel {
  const uint8_t* w;  // one panel, core/kernels/quantised.h
  bool int4;
  int tiles;  // 1..3
  int64_t k;
  int64_t group;             // activations
  int64_t weight_group;      // divides group
  const int8_t* x;           // [rows, k]
  const float* x_scales;     // [rows, k / group]
  const int32_t* x_offsets;  // [rows, k / weight_group]
  int64_t rows;              // 1..kQuantisedRowsMax
  float* y;                  // [rows, columns]
  float* up;                 // not null: lanes 0-7 of tile t go to y[8 t], lanes 8-15 to up[8 t]
  int64_t y_stride;
  int64_t columns;  // real ones
  bool add;
};

struct QuantiseRow {
  const void* x;  // [width]
  DType dtype;
  int64_t width;
  int64_t group;
  int64_t weight_group;
  int32_t zero_point;
  int8_t* values;
  float* scales;
  int32_t* offsets;
};

struct NormRow {
  const float* x;
  int64_t width;
  const float* weight;
  float eps;
  void* y;  // may be x if f32
  DType y_dtype;
};

struct RopeRow {
  float* x;  // [heads, 2 * half]
  int64_t heads;
  int64_t half;
  const float* cos;  // [half]
  const float* sin;  // [half]
};

struct CombineRow {
  const void* const* rows;  // [count] of [width]
  const float* weights;     // [count]
  DType dtype;
  int64_t count;
  int64_t width;
  float* residual;  // [width]
};

inline constexpr int64_t kAttendTokensMax = 16;

// The query heads of some tokens of a sequence that read one kv head.
struct AttendRun {
  const float* q;  // [tokens, heads, head_dim], tokens q_stride floats apart
  int64_t q_stride;
  float* out;  // as q
  int64_t out_stride;
  int64_t tokens;            // 1..kAttendTokensMax
  const int32_t* positions;  // [tokens]
  int64_t heads;
  int64_t head_dim;
  float scale;
  const int32_t* blocks;    // of all of them
  const std::byte* keys;    // of this kv head in block 0: [head_dim][16]
  const std::byte* values;  // [16][head_dim]
  size_t block_stride_bytes;
  DType dtype;
};

struct ExpSumRow {
  const float* x;  // [count]
  int64_t count;
  float shift;
  float factor;
  float* terms;  // [count]: Exp((x - shift) * factor); null: only their sum is wanted
};

struct RowMax {
  float max;  // -inf for an empty row
  bool bad;   // a NaN or +inf was seen; max is then meaningless
};

struct Primitives {
  void (*matmul)(const MatMulPanel&);
  void (*quantised_panel)(const QuantisedPanel&);
  void (*quantise)(const QuantiseRow&);
  void (*gated)(const float* gate, const float* up, int64_t width, float* out);  // silu(gate) * up
  void (*rms_norm)(const NormRow&);
  void (*rope)(const RopeRow&);
  void (*swiglu)(const float* gate_up, int64_t width, float* out);
  void (*attend)(const AttendRun&);
  void (*combine)(const CombineRow&);
  void (*widen)(const void* src, DType dtype, int64_t width, float* dst);
  void (*round)(const float* src, int64_t width, DType dtype, void* dst);
  double (*exp_sum)(const ExpSumRow&);  // summed as sample.h says
  RowMax (*row_max)(const float* x, int64_t count);
};

extern const Primitives kScalarPrimitives;
extern const Primitives kAvx2Primitives;
extern const Primitives kAvx512Primitives;

}  // namespace bottega
