#include "core/model/expert_block.h"

#include <algorithm>
#include <chrono>

#include "core/base/check.h"
#include "core/kernels/permute.h"
#include "core/kernels/swiglu.h"

namespace bottega {
namespace {
using Clock = std::chrono::steady_clock;
constexpr int32_t kFirst[] = {0};
}  // namespace

ExpertBlock::ExpertBlock(const Cpu& cpu, const ExpertBlockShape& shape, int64_t rows_max)
    : cpu_(cpu), shape_(shape), rows_max_(rows_max), y_(rows_max * shape.hidden) {
  CHECK(rows_max > 0);
  // A piece has a row at least.
  const size_t most = static_cast<size_t>(rows_max);
  x_rows_.reserve(most);
  y_rows_.reserve(most);
  pieces_.reserve(most);
  if (IsQuantised(shape.weights)) {
    quantised_gate_ups_.reserve(most);
    quantised_products_.reserve(most);
    quantised_x_ = AlignedBuffer(QuantisedRows::Bytes(shape.weights, rows_max, shape.hidden));
    quantised_act_ = AlignedBuffer(QuantisedRows::Bytes(shape.weights, rows_max, shape.width));
  } else {
    products_.reserve(most);
    x_.resize(rows_max * shape.hidden);
    gate_up_.resize(rows_max * GateUpOutputs(shape.width));
    act_.resize(rows_max * shape.width);
  }
}

void ExpertBlock::Run(absl::Span<const ExpertGroup> groups) {
  pieces_.clear();
  times_ = {};
  int64_t rows = 0;
  for (const ExpertGroup& group : groups) {
    CHECK_EQ(group.in.size(), group.out.size());
    const int64_t group_rows = static_cast<int64_t>(group.in.size());
    for (int64_t first = 0; first < group_rows;) {
      const int64_t take = std::min(group_rows - first, rows_max_ - rows);
      pieces_.push_back({&group, first, take, rows});
      first += take;
      rows += take;
      if (rows < rows_max_) continue;
      RunTurn(pieces_);
      pieces_.clear();
      rows = 0;
    }
  }
  if (!pieces_.empty()) RunTurn(pieces_);
}

void ExpertBlock::RunTurn(absl::Span<const Piece> pieces) {
  const bool quantised = IsQuantised(shape_.weights);
  const Clock::time_point begin = Clock::now();
  Gather(pieces);
  const Clock::time_point gathered = Clock::now();
  if (quantised) {
    GateUpQuantised(pieces);
  } else {
    GateUp(pieces);
  }
  const Clock::time_point activated = Clock::now();
  if (quantised) {
    DownQuantised(pieces);
  } else {
    Down(pieces);
  }
  // round to R, each row to where it is wanted
  y_rows_.clear();
  for (const Piece& piece : pieces) {
    const auto rows = piece.group->out.subspan(piece.first, piece.rows);
    y_rows_.insert(y_rows_.end(), rows.begin(), rows.end());
  }
  RoundRows(cpu_, {.src = y_.data(),
                   .src_stride = shape_.hidden,
                   .width = shape_.hidden,
                   .dst_rows = y_rows_,
                   .dtype = shape_.row_type});
  times_.gather += gathered - begin;
  times_.gate_up += activated - gathered;
  times_.down += Clock::now() - activated;
}

// Rows from wherever they lie.
void ExpertBlock::Gather(absl::Span<const Piece> pieces) {
  const int64_t hidden = shape_.hidden;
  x_rows_.clear();
  for (const Piece& piece : pieces) {
    const auto rows = piece.group->in.subspan(piece.first, piece.rows);
    x_rows_.insert(x_rows_.end(), rows.begin(), rows.end());
  }
  const int64_t rows = static_cast<int64_t>(x_rows_.size());
  if (IsQuantised(shape_.weights)) {
    Quantise(cpu_, {.x_rows = x_rows_,
                    .dtype = shape_.row_type,
                    .rows = rows,
                    .to = QuantisedRows::In(quantised_x_.data(), shape_.weights, rows, hidden)});
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    GatherRows(cpu_, {.src = x_rows_[row],
                      .dtype = shape_.row_type,
                      .src_stride = hidden,
                      .index = kFirst,
                      .width = hidden,
                      .dst = x_.data() + row * hidden,
                      .dst_stride = hidden});
  }
}

// All experts in one parallel region.
void ExpertBlock::GateUp(absl::Span<const Piece> pieces) {
  const int64_t hidden = shape_.hidden, gate_up_width = GateUpOutputs(shape_.width);
  products_.clear();
  for (const Piece& piece : pieces) {
    products_.push_back({.x = x_.data() + piece.row * hidden,
                         .x_stride = hidden,
                         .m = piece.rows,
                         .w = piece.group->mlp.gate_up.plain(),
                         .y = gate_up_.data() + piece.row * gate_up_width,
                         .y_stride = gate_up_width});
  }
  MatMulGroup(cpu_, products_);
  SwiGlu(cpu_, {.gate_up = gate_up_.data(),
                .gate_up_stride = gate_up_width,
                .rows = static_cast<int64_t>(x_rows_.size()),
                .width = shape_.width,
                .out = act_.data(),
                .out_stride = shape_.width});
}

void ExpertBlock::Down(absl::Span<const Piece> pieces) {
  const int64_t hidden = shape_.hidden, width = shape_.width;
  products_.clear();
  for (const Piece& piece : pieces) {
    products_.push_back({.x = act_.data() + piece.row * width,
                         .x_stride = width,
                         .m = piece.rows,
                         .w = piece.group->mlp.down.plain(),
                         .y = y_.data() + piece.row * hidden,
                         .y_stride = hidden});
  }
  MatMulGroup(cpu_, products_);
}

void ExpertBlock::GateUpQuantised(absl::Span<const Piece> pieces) {
  const int64_t rows = static_cast<int64_t>(x_rows_.size());
  const auto x = QuantisedRows::In(quantised_x_.data(), shape_.weights, rows, shape_.hidden);
  const auto act = QuantisedRows::In(quantised_act_.data(), shape_.weights, rows, shape_.width);
  quantised_gate_ups_.clear();
  for (const Piece& piece : pieces) {
    quantised_gate_ups_.push_back({.x = x.From(piece.row),
                                   .m = piece.rows,
                                   .w = piece.group->mlp.quantised_gate_up(),
                                   .out = act.From(piece.row)});
  }
  QuantisedGateUpGroup(cpu_, quantised_gate_ups_);
}

void ExpertBlock::DownQuantised(absl::Span<const Piece> pieces) {
  const int64_t rows = static_cast<int64_t>(x_rows_.size());
  const auto act = QuantisedRows::In(quantised_act_.data(), shape_.weights, rows, shape_.width);
  quantised_products_.clear();
  for (const Piece& piece : pieces) {
    quantised_products_.push_back({.x = act.From(piece.row),
                                   .m = piece.rows,
                                   .w = piece.group->mlp.down.quantised(),
                                   .y = y_.data() + piece.row * shape_.hidden,
                                   .y_stride = shape_.hidden});
  }
  QuantisedMatMulGroup(cpu_, quantised_products_);
}

}  // namespace bottega
