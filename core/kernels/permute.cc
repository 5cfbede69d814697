#include "core/kernels/permute.h"

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"

namespace bottega {

void GatherRows(const Cpu& cpu, const GatherRowsArgs& args) {
  const size_t row_bytes = static_cast<size_t>(args.src_stride) * SizeOf(args.dtype);
  ForRows(cpu, args.index.size(), args.width, [&](int64_t row) {
    cpu.primitives->widen(static_cast<const std::byte*>(args.src) + args.index[row] * row_bytes,
                          args.dtype, args.width, args.dst + row * args.dst_stride);
  });
}

void RoundRows(const Cpu& cpu, const RoundRowsArgs& args) {
  ForRows(cpu, args.dst_rows.size(), args.width, [&](int64_t row) {
    cpu.primitives->round(args.src + row * args.src_stride, args.width, args.dtype,
                          args.dst_rows[row]);
  });
}

void GroupByExpert(absl::Span<const uint16_t> experts, absl::Span<int32_t> offsets,
                   absl::Span<int32_t> order) {
  CHECK_EQ(experts.size(), order.size());
  CHECK_GE(offsets.size(), 1u);
  for (int32_t& offset : offsets) offset = 0;
  // Counts one slot up, then sums: offsets[e] is where expert e starts. Placing the assignments
  // moves each start to its end, which is the next one's start; the last loop shifts them back.
  for (const uint16_t expert : experts) {
    CHECK_LT(expert + 1u, offsets.size());
    ++offsets[expert + 1];
  }
  for (size_t e = 1; e < offsets.size(); ++e) offsets[e] += offsets[e - 1];
  for (size_t i = 0; i < experts.size(); ++i) {
    order[offsets[experts[i]]++] = static_cast<int32_t>(i);
  }
  for (size_t e = offsets.size() - 1; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

}  // namespace bottega
