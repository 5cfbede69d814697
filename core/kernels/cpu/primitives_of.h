#pragma once

#include "core/kernels/cpu/attention_lanes.h"
#include "core/kernels/cpu/matmul_lanes.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/quantised_lanes.h"
#include "core/kernels/cpu/row_lanes.h"

namespace bottega {

// The table for one lane type: every instantiation carries the lane type in its name, so code of
// different instruction sets never merges.
template <class L>
consteval Primitives PrimitivesOf() {
  return {
      .matmul = MatMulPrimitive<L>,
      .quantised_panel = QuantisedPanelPrimitive<L>,
      .quantise = QuantiseRowPrimitive<L>,
      .gated = GatedPrimitive<L>,
      .rms_norm = RmsNormPrimitive<L>,
      .rope = RopePrimitive<L>,
      .swiglu = SwiGluPrimitive<L>,
      .attend = AttendPrimitive<L>,
      .combine = CombinePrimitive<L>,
      .widen = WidenPrimitive<L>,
      .round = RoundPrimitive<L>,
      .exp_sum = ExpSumPrimitive<L>,
      .row_max = RowMaxPrimitive<L>,
  };
}

}  // namespace bottega
