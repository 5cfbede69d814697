#include "core/kernels/combine.h"

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"

namespace bottega {

void Combine(const Cpu& cpu, const CombineArgs& args) {
  CHECK_GE(args.top_k, 0);
  ForRows(cpu, args.tokens, args.top_k * args.width, [&](int64_t token) {
    cpu.primitives->combine({.rows = args.rows + token * args.top_k,
                             .weights = args.weights + token * args.top_k,
                             .dtype = args.row_dtype,
                             .count = args.top_k,
                             .width = args.width,
                             .residual = args.residual + token * args.residual_stride});
  });
}

}  // namespace bottega
