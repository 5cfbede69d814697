#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/base/time.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/matmul.h"
#include "core/tensor/dtype.h"

namespace bottega {

// The rows of a step that go through one expert. Rows are [hidden] of R, anywhere in memory,
// aligned for R; out[i] belongs to in[i] and may not overlap any input.
struct ExpertGroup {
  PackedMatrix gate_up;  // [GateUpOutputs(width), hidden], core/kernels/swiglu.h
  PackedMatrix down;     // [hidden, width]
  absl::Span<const std::byte* const> in;
  absl::Span<std::byte* const> out;
};

struct ExpertBlockShape {
  int64_t hidden = 0;
  int64_t width = 0;  // of one expert
  DType row_type = DType::kBF16;
};

// How long the stages of one Run took.
struct ExpertBlockTimes {
  Duration gather{};
  Duration gate_up{};  // with swiglu
  Duration down{};     // with rounding to R
};

// The feed-forward network of some experts of one layer: widen, gate_up, swiglu, down, round to R.
// A row's bytes depend on the row and the weights only, not on its neighbours, their number or the
// threads. Holds the scratch of rows_max rows; not thread safe.
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
  };
  void RunTurn(absl::Span<const Piece> pieces);

  Cpu cpu_;
  ExpertBlockShape shape_;
  int64_t rows_max_;
  ExpertBlockTimes times_;
  std::vector<float> x_;        // [rows_max, hidden]
  std::vector<float> gate_up_;  // [rows_max, GateUpOutputs(width)]
  std::vector<float> act_;      // [rows_max, width]
  std::vector<float> y_;        // [rows_max, hidden]
  std::vector<Piece> pieces_;
  std::vector<MatMulArgs> products_;
};

}  // namespace bottega
