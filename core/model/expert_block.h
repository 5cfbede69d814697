#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/base/time.h"
#include "core/kernels/cpu/cpu.h"
#include "core/model/weight_matrix.h"
#include "core/tensor/aligned_buffer.h"
#include "core/tensor/dtype.h"

namespace bottega {

// The rows of a step that go through one expert. Rows are [hidden] of R, anywhere in memory,
// aligned for R; out[i] belongs to in[i] and may not overlap any input.
struct ExpertGroup {
  GatedMlpWeights mlp;  // of ExpertBlockShape's width and format
  absl::Span<const std::byte* const> in;
  absl::Span<std::byte* const> out;
};

struct ExpertBlockShape {
  int64_t hidden = 0;
  int64_t width = 0;  // of one expert
  DType row_type = DType::kBF16;
  WeightFormat weights = WeightFormat::kBF16;
};

// How long the stages of one Run took.
struct ExpertBlockTimes {
  Duration gather{};   // with widening or quantising
  Duration gate_up{};  // with swiglu (and quantising its result)
  Duration down{};     // with rounding to R
};

// The feed-forward network of some experts of one layer: widen, gate_up, swiglu, down, round to R;
// or quantise, gate_up and swiglu and quantise, down, round to R. A row's bytes depend on the row
// and the weights only, not on its neighbours, their number or the threads. Holds the scratch of
// rows_max rows; not thread safe.
class ExpertBlock {
 public:
  ExpertBlock(const Cpu& cpu, const ExpertBlockShape& shape, int64_t rows_max);

  // Any number of rows; past rows_max they go in several turns.
  void Run(absl::Span<const ExpertGroup> groups);

  int64_t rows_max() const { return rows_max_; }
  const ExpertBlockTimes& last_times() const { return times_; }

 private:
  struct Piece {  // a run of rows of one group that fits this turn
    const ExpertGroup* group;
    int64_t first;
    int64_t rows;
    int64_t row;  // where they begin among this turn's rows
  };
  void RunTurn(absl::Span<const Piece> pieces);
  void Gather(absl::Span<const Piece> pieces);
  void GateUp(absl::Span<const Piece> pieces);
  void Down(absl::Span<const Piece> pieces);
  void GateUpQuantised(absl::Span<const Piece> pieces);
  void DownQuantised(absl::Span<const Piece> pieces);

  Cpu cpu_;
  ExpertBlockShape shape_;
  int64_t rows_max_;
  ExpertBlockTimes times_;
  // Plain formats.
  std::vector<float> x_;        // [rows_max, hidden]
  std::vector<float> gate_up_;  // [rows_max, GateUpOutputs(width)]
  std::vector<float> act_;      // [rows_max, width]
  std::vector<MatMulArgs> products_;
  // Quantised formats.
  AlignedBuffer quantised_x_;    // QuantisedRows [rows_max, hidden]
  AlignedBuffer quantised_act_;  // QuantisedRows [rows_max, width]
  std::vector<const std::byte*> x_rows_;
  std::vector<QuantisedGateUpArgs> quantised_gate_ups_;
  std::vector<QuantisedMatMulArgs> quantised_products_;

  std::vector<float> y_;  // [rows_max, hidden]
  std::vector<std::byte*> y_rows_;
  std::vector<Piece> pieces_;
};

}  // namespace bottega
