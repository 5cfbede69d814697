#include "core/kernels/rope.h"

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"
#include "core/kernels/elementary.h"

namespace bottega {

void RopeAngles(absl::Span<const float> inv_freq, float attention_scaling,
                absl::Span<const int32_t> positions, float* cos, float* sin) {
  for (const int32_t position : positions) {
    for (const float frequency : inv_freq) {
      const float angle = static_cast<float>(position) * frequency;
      const SinCos value = SinCosOf(angle);
      *cos++ = value.cos * attention_scaling;
      *sin++ = value.sin * attention_scaling;
    }
  }
}

void Rope(const Cpu& cpu, const RopeArgs& args) {
  CHECK_EQ(args.head_dim % 2, 0);
  const int64_t half = args.head_dim / 2;
  ForRows(cpu, args.rows, args.heads * args.head_dim, [&](int64_t row) {
    cpu.primitives->rope({.x = args.x + row * args.x_stride,
                          .heads = args.heads,
                          .half = half,
                          .cos = args.cos + row * half,
                          .sin = args.sin + row * half});
  });
}

}  // namespace bottega
