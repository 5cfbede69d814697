#include "core/kernels/rms_norm.h"

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"

namespace bottega {

void RmsNorm(const Cpu& cpu, const RmsNormArgs& args) {
  CHECK(args.width > 0 && args.groups > 0);
  const size_t element = SizeOf(args.y_dtype);
  ForRows(cpu, args.rows, args.groups * args.width, [&](int64_t row) {
    const float* x = args.x + row * args.x_stride;
    std::byte* y = static_cast<std::byte*>(args.y) + row * args.y_stride * element;
    for (int64_t group = 0; group < args.groups; ++group) {
      cpu.primitives->rms_norm({.x = x + group * args.width,
                                .width = args.width,
                                .weight = args.weight,
                                .eps = args.eps,
                                .y = y + group * args.width * element,
                                .y_dtype = args.y_dtype});
    }
  });
}

}  // namespace bottega
