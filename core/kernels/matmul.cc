#include "core/kernels/matmul.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"
#include "core/tensor/bf16.h"

namespace bottega {
namespace {

constexpr int64_t kPanelColumns = kPanelTiles * kTileLanes;

// A work unit is a panel of up to 64 columns times up to 96 rows (a multiple of the microkernel's
// 6): at k = 2880 35 MFLOP, below a millisecond on any machine, and a panel read from memory serves
// 16 microkernel passes.
constexpr int64_t kRowsPerItem = 96;

constexpr int64_t kInlineMacs = 1 << 19;

int64_t PanelsOf(const MatMulArgs& args) { return (args.w.n + kPanelColumns - 1) / kPanelColumns; }
int64_t RowChunksOf(const MatMulArgs& args) { return (args.m + kRowsPerItem - 1) / kRowsPerItem; }
int64_t ItemsOf(const MatMulArgs& args) { return PanelsOf(args) * RowChunksOf(args); }

void CheckArgs(const MatMulArgs& args) {
  CHECK_GE(args.m, 0);
  CHECK_GE(args.w.k, 0);
  CHECK_GE(args.w.n, 0);
  if (args.m == 0 || args.w.n == 0) return;
  CHECK(args.x != nullptr || args.w.k == 0);
  CHECK(args.y != nullptr);
  CHECK(args.w.data != nullptr || args.w.k == 0);
  CHECK(args.m == 1 || (args.x_stride >= args.w.k && args.y_stride >= args.w.n));
}

void RunItem(const Cpu& cpu, const MatMulArgs& args, int64_t item) {
  // Row chunks of a panel follow each other, so that its weights are still in the cache.
  const int64_t chunks = RowChunksOf(args);
  const int64_t column = item / chunks * kPanelColumns;
  const int64_t row = item % chunks * kRowsPerItem;
  const size_t offset = static_cast<size_t>(column * args.w.k) * SizeOf(args.w.dtype);
  cpu.primitives->matmul({
      .x = args.x + row * args.x_stride,
      .x_stride = args.x_stride,
      .rows = std::min(kRowsPerItem, args.m - row),
      .w = static_cast<const std::byte*>(args.w.data) + offset,
      .dtype = args.w.dtype,
      .k = args.w.k,
      .columns = std::min(kPanelColumns, args.w.n - column),
      .y = args.y + row * args.y_stride + column,
      .y_stride = args.y_stride,
      .add = args.add,
  });
}

float ReadElement(const void* data, DType dtype, int64_t i) {
  return dtype == DType::kF32 ? static_cast<const float*>(data)[i]
                              : Widen(static_cast<const BF16*>(data)[i]);
}

void WriteElement(void* data, DType dtype, int64_t i, float value) {
  if (dtype == DType::kF32) {
    static_cast<float*>(data)[i] = value;
  } else {
    static_cast<BF16*>(data)[i] = RoundToBF16(value);
  }
}

}  // namespace

void PackTiles(absl::Span<const RowBlock> blocks, int64_t k, DType dtype, void* dst) {
  int64_t row = 0;
  for (const RowBlock& block : blocks) row += block.rows;
  if (row == 0 || k == 0) return;
  std::memset(dst, 0, PackedBytes(dtype, row, k));
  row = 0;
  for (const RowBlock& block : blocks) {
    for (int64_t r = 0; r < block.rows; ++r, ++row) {
      const int64_t base = row / kTileLanes * k * kTileLanes + row % kTileLanes;
      for (int64_t i = 0; i < k; ++i) {
        WriteElement(dst, dtype, base + i * kTileLanes,
                     ReadElement(block.data, block.dtype, r * k + i));
      }
    }
  }
}

void MatMulGroup(const Cpu& cpu, absl::Span<const MatMulArgs> group) {
  for (const MatMulArgs& args : group) CheckArgs(args);
  ForItemsOfGroup(
      cpu, group, kInlineMacs, ItemsOf,
      [](const MatMulArgs& args) { return args.m * args.w.n * args.w.k; },
      [&](const MatMulArgs& args, int64_t item) { RunItem(cpu, args, item); });
}

void MatMul(const Cpu& cpu, const MatMulArgs& args) { MatMulGroup(cpu, {&args, 1}); }

}  // namespace bottega
