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
    : cpu_(cpu),
      shape_(shape),
      rows_max_(rows_max),
      x_(rows_max * shape.hidden),
      gate_up_(rows_max * GateUpOutputs(shape.width)),
      act_(rows_max * shape.width),
      y_(rows_max * shape.hidden) {
  CHECK(rows_max > 0);
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
      pieces_.push_back({&group, first, take});
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
  const int64_t hidden = shape_.hidden, width = shape_.width;
  const int64_t gate_up_width = GateUpOutputs(width);
  const Clock::time_point begin = Clock::now();

  // gather: rows from wherever they lie, widened
  int64_t row = 0;
  for (const Piece& piece : pieces) {
    for (int64_t i = piece.first; i < piece.first + piece.rows; ++i, ++row) {
      GatherRows(cpu_, {.src = piece.group->in[i],
                        .dtype = shape_.row_type,
                        .src_stride = hidden,
                        .index = kFirst,
                        .width = hidden,
                        .dst = x_.data() + row * hidden,
                        .dst_stride = hidden});
    }
  }
  const int64_t rows = row;
  const Clock::time_point gathered = Clock::now();

  // gate_up, all experts in one parallel region
  products_.clear();
  row = 0;
  for (const Piece& piece : pieces) {
    products_.push_back({.x = x_.data() + row * hidden,
                         .x_stride = hidden,
                         .m = piece.rows,
                         .w = piece.group->gate_up,
                         .y = gate_up_.data() + row * gate_up_width,
                         .y_stride = gate_up_width});
    row += piece.rows;
  }
  MatMulGroup(cpu_, products_);

  // swiglu
  SwiGlu(cpu_, {.gate_up = gate_up_.data(),
                .gate_up_stride = gate_up_width,
                .rows = rows,
                .width = width,
                .out = act_.data(),
                .out_stride = width});
  const Clock::time_point activated = Clock::now();

  // down
  products_.clear();
  row = 0;
  for (const Piece& piece : pieces) {
    products_.push_back({.x = act_.data() + row * width,
                         .x_stride = width,
                         .m = piece.rows,
                         .w = piece.group->down,
                         .y = y_.data() + row * hidden,
                         .y_stride = hidden});
    row += piece.rows;
  }
  MatMulGroup(cpu_, products_);

  // round to R, each row to where it is wanted
  row = 0;
  for (const Piece& piece : pieces) {
    for (int64_t i = piece.first; i < piece.first + piece.rows; ++i, ++row) {
      RoundRows(cpu_, {.src = y_.data() + row * hidden,
                       .src_stride = hidden,
                       .rows = 1,
                       .width = hidden,
                       .dst = piece.group->out[i],
                       .dtype = shape_.row_type,
                       .dst_stride = hidden});
    }
  }
  times_.gather += gathered - begin;
  times_.gate_up += activated - gathered;
  times_.down += Clock::now() - activated;
}

}  // namespace bottega
