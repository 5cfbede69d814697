#include "core/kernels/quantised.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"

namespace bottega {
namespace {

static_assert(kQuantisedGroupMax == kQuantGroupMax);

constexpr size_t RoundUp64(size_t bytes) { return (bytes + 63) / 64 * 64; }

constexpr int64_t kInlineMacs = 1 << 20;

// Rows are cut into chunks of about one size: each reads all weights again.
int64_t RowChunks(int64_t rows) { return (rows + kQuantisedRowsMax - 1) / kQuantisedRowsMax; }

// What an item computes: a piece of the weights (a panel, a span), and some of `m` rows. The chunks
// of a piece follow each other, so that its weights are still in the cache.
struct Item {
  Item(int64_t m, int64_t item) {
    const int64_t chunks = RowChunks(m);
    const int64_t even = (m + chunks - 1) / chunks;
    const int64_t most =
        (even + kQuantisedBlockRows - 1) / kQuantisedBlockRows * kQuantisedBlockRows;
    piece = item / chunks;
    row = item % chunks * most;
    rows = std::min(most, m - row);
  }
  int64_t piece, row, rows;
};

// A panel of `w` at the rows of `x` from `row` on; where the sums go is the caller's.
QuantisedPanel PanelOf(const QuantisedMatrix& w, int64_t span, int64_t panel,
                       const QuantisedRows& x, int64_t rows) {
  const QuantisedShape& shape = w.shape;
  const int64_t span_tiles =
      std::min(shape.span_tiles(), shape.tiles() - span * shape.span_tiles());
  const size_t offset =
      static_cast<size_t>(span) * shape.SpanBytes(shape.span_tiles()) + shape.PanelOffset(panel);
  return {.w = reinterpret_cast<const uint8_t*>(w.data + offset),
          .int4 = shape.format == WeightFormat::kInt4,
          .tiles = static_cast<int>(shape.PanelTiles(span_tiles, panel)),
          .k = shape.k,
          .group = shape.group(),
          .weight_group = shape.weight_group(),
          .x = x.values,
          .x_scales = x.scales,
          .x_offsets = x.offsets,
          .rows = rows,
          .y = nullptr,
          .up = nullptr,
          .y_stride = 0,
          .columns = 0,
          .add = false};
}

void CheckRows(const QuantisedRows& x, const QuantisedShape& shape) {
  CHECK_EQ(x.k, shape.k);
  CHECK(x.format == shape.format);
}

}  // namespace

size_t QuantisedRows::Bytes(WeightFormat format, int64_t rows, int64_t k) {
  return RoundUp64(static_cast<size_t>(rows * k)) +
         RoundUp64(static_cast<size_t>(rows * (k / QuantGroup(format, k))) * sizeof(float)) +
         RoundUp64(static_cast<size_t>(rows * (k / WeightGroup(format, k))) * sizeof(int32_t));
}

QuantisedRows QuantisedRows::In(void* memory, WeightFormat format, int64_t rows, int64_t k) {
  std::byte* at = static_cast<std::byte*>(memory);
  QuantisedRows all{.format = format, .k = k};
  all.values = reinterpret_cast<int8_t*>(at);
  at += RoundUp64(static_cast<size_t>(rows * k));
  all.scales = reinterpret_cast<float*>(at);
  at += RoundUp64(static_cast<size_t>(rows * all.groups()) * sizeof(float));
  all.offsets = reinterpret_cast<int32_t*>(at);
  return all;
}

void Quantise(const Cpu& cpu, const QuantiseArgs& args) {
  CHECK(args.x != nullptr || static_cast<int64_t>(args.x_rows.size()) == args.rows);
  const size_t row_bytes = static_cast<size_t>(args.x_stride) * SizeOf(args.dtype);
  ForRows(cpu, args.rows, 2 * args.to.k, [&](int64_t row) {
    const QuantisedRows to = args.to.From(row);
    const std::byte* x = args.x == nullptr
                             ? args.x_rows[row]
                             : static_cast<const std::byte*>(args.x) + row * row_bytes;
    // Rows that lie anywhere: waiting for the first lines of each was a quarter of the time.
    if (args.x == nullptr && row + 1 < args.rows) {
      const std::byte* next = args.x_rows[row + 1];
      for (size_t i = 0; i < static_cast<size_t>(to.k) * SizeOf(args.dtype); i += 64) {
        __builtin_prefetch(next + i);
      }
    }
    cpu.primitives->quantise({.x = x,
                              .dtype = args.dtype,
                              .width = to.k,
                              .group = QuantGroup(to.format, to.k),
                              .weight_group = WeightGroup(to.format, to.k),
                              .zero_point = ZeroPoint(to.format),
                              .values = to.values,
                              .scales = to.scales,
                              .offsets = to.offsets});
  });
}

void GatherTable(const Cpu& cpu, const GatherTableArgs& args) {
  const size_t row_bytes = QuantisedTableRowBytes(args.format, args.width);
  ForRows(cpu, args.index.size(), 4 * args.width, [&](int64_t row) {
    ReadTableRow(args.format, args.table + static_cast<size_t>(args.index[row]) * row_bytes,
                 {args.dst + row * args.width, static_cast<size_t>(args.width)});
  });
}

void QuantisedMatMulGroup(const Cpu& cpu, absl::Span<const QuantisedMatMulArgs> group) {
  for (const QuantisedMatMulArgs& args : group) {
    if (args.m == 0) continue;
    CheckRows(args.x, args.w.shape);
    CHECK_EQ(args.w.shape.span, 0);
    CHECK(args.m == 1 || args.y_stride >= args.w.shape.n);
  }
  ForItemsOfGroup(
      cpu, group, kInlineMacs,
      [](const QuantisedMatMulArgs& args) {
        return args.w.shape.span_panels() * RowChunks(args.m);
      },
      [](const QuantisedMatMulArgs& args) { return args.m * args.w.shape.n * args.w.shape.k; },
      [&](const QuantisedMatMulArgs& args, int64_t item) {
        const auto [panel, row, rows] = Item(args.m, item);
        const int64_t column = panel * kQuantPanelTiles * 16;
        QuantisedPanel work = PanelOf(args.w, 0, panel, args.x.From(row), rows);
        work.y = args.y + row * args.y_stride + column;
        work.y_stride = args.y_stride;
        work.columns = args.w.shape.n - column;
        work.add = args.add;
        cpu.primitives->quantised_panel(work);
      });
}

void QuantisedGateUpGroup(const Cpu& cpu, absl::Span<const QuantisedGateUpArgs> group) {
  for (const QuantisedGateUpArgs& args : group) {
    if (args.m == 0) continue;
    CheckRows(args.x, args.w.shape);
    CHECK_EQ(args.w.shape.n, 2 * args.out.k);
    CHECK_EQ(args.w.shape.span, QuantGroup(args.out.format, args.out.k) / 8);
  }
  ForItemsOfGroup(
      cpu, group, kInlineMacs,
      [](const QuantisedGateUpArgs& args) { return args.w.shape.spans() * RowChunks(args.m); },
      [](const QuantisedGateUpArgs& args) { return args.m * args.w.shape.n * args.w.shape.k; },
      [&](const QuantisedGateUpArgs& args, int64_t item) {
        const QuantisedShape& shape = args.w.shape;
        const int64_t width =
            QuantGroup(args.out.format, args.out.k);  // outputs of a span: one group
        const auto [span, row, rows] = Item(args.m, item);
        alignas(64) float gate[kQuantisedRowsMax * kQuantGroupMax];
        alignas(64) float up[kQuantisedRowsMax * kQuantGroupMax];
        for (int64_t panel = 0; panel < shape.span_panels(); ++panel) {
          QuantisedPanel work = PanelOf(args.w, span, panel, args.x.From(row), rows);
          work.y = gate + panel * kQuantPanelTiles * 8;
          work.up = up + panel * kQuantPanelTiles * 8;
          work.y_stride = width;
          cpu.primitives->quantised_panel(work);
        }
        const int64_t parts = width / WeightGroup(args.out.format, args.out.k);
        for (int64_t r = 0; r < rows; ++r) {
          const QuantisedRows out = args.out.From(row + r);
          alignas(64) float inner[kQuantGroupMax];
          cpu.primitives->gated(gate + r * width, up + r * width, width, inner);
          cpu.primitives->quantise({.x = inner,
                                    .dtype = DType::kF32,
                                    .width = width,
                                    .group = width,
                                    .weight_group = width / parts,
                                    .zero_point = ZeroPoint(out.format),
                                    .values = out.values + span * width,
                                    .scales = out.scales + span,
                                    .offsets = out.offsets + span * parts});
        }
      });
}

}  // namespace bottega
