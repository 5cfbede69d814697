#pragma once

#include <cstdint>

#include "core/kernels/cpu/cpu.h"
#include "core/kernels/matmul.h"

namespace bottega {

// gate and up of one expert as ONE packed matrix [2 * RoundUpToTile(width), hidden]: tile 0 of
// gate, tile 0 of up, tile 1 of gate, ... so that SwiGLU works on neighbouring runs of 16. A width
// that is no multiple of 16 (1080, 56) pads gate and up each with zero rows: silu(0) * 0 = 0,
// exactly.
constexpr int64_t GateUpOutputs(int64_t width) { return 2 * RoundUpToTile(width); }
constexpr size_t GateUpPackedBytes(DType dtype, int64_t width, int64_t hidden) {
  return PackedBytes(dtype, GateUpOutputs(width), hidden);
}

// gate, up: [width, hidden] each; dst: GateUpPackedBytes.
void PackGateUp(const RowBlock& gate, const RowBlock& up, int64_t hidden, DType dtype, void* dst);

// out[c] = silu(gate[c]) * up[c], silu(g) = g / (1 + Exp(-g)), all f32.
struct SwiGluArgs {
  const float* gate_up = nullptr;  // [rows, GateUpOutputs(width)], columns in the order above
  int64_t gate_up_stride = 0;      // floats
  int64_t rows = 0;
  int64_t width = 0;
  float* out =
      nullptr;  // [rows, width], rows out_stride floats apart; only width columns are written
  int64_t out_stride = 0;
};
void SwiGlu(const Cpu& cpu, const SwiGluArgs& args);

}  // namespace bottega
