#include "core/kernels/swiglu.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"

namespace bottega {

void PackGateUp(const RowBlock& gate, const RowBlock& up, int64_t hidden, DType dtype, void* dst) {
  CHECK_EQ(gate.rows, up.rows);
  const size_t tile_bytes = PackedBytes(dtype, kTileLanes, hidden);
  std::byte* tile = static_cast<std::byte*>(dst);
  for (int64_t row = 0; row < gate.rows; row += kTileLanes) {
    for (const RowBlock& from : {gate, up}) {
      const size_t row_bytes = static_cast<size_t>(hidden) * SizeOf(from.dtype);
      const RowBlock part = {.data = static_cast<const std::byte*>(from.data) + row * row_bytes,
                             .dtype = from.dtype,
                             .rows = std::min(kTileLanes, from.rows - row)};
      PackTiles({&part, 1}, hidden, dtype, tile);
      tile += tile_bytes;
    }
  }
}

void SwiGlu(const Cpu& cpu, const SwiGluArgs& args) {
  // An exp and a division per element: several times the cost of a plain row.
  ForRows(cpu, args.rows, 4 * args.width, [&](int64_t row) {
    cpu.primitives->swiglu(args.gate_up + row * args.gate_up_stride, args.width,
                           args.out + row * args.out_stride);
  });
}

}  // namespace bottega
