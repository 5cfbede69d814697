#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"

namespace bottega {

// Shares rows out to threads for the operators that work along a row: runs of rows of about 64 Ki
// elements an item (tens of microseconds), so that small calls stay on the caller.
template <class Fn>
void ForRows(const Cpu& cpu, int64_t rows, int64_t elements_per_row, const Fn& fn) {
  if (rows <= 0) return;
  const int64_t per_item =
      std::max<int64_t>(1, (64 << 10) / std::max<int64_t>(1, elements_per_row));
  const int64_t items = (rows + per_item - 1) / per_item;
  const auto run = [&](int64_t item, int) {
    const int64_t end = std::min(rows, (item + 1) * per_item);
    for (int64_t row = item * per_item; row < end; ++row) fn(row);
  };
  if (items == 1) {
    run(0, 0);
  } else {
    cpu.pool->ParallelFor(items, run);
  }
}

// Shares the items of several argument sets out to threads as one parallel region: item `item` of
// `args` is run_item(args, item). Below `inline_macs` multiply-adds in all the caller does it, for
// waking a thread costs more than it saves (20-45 us a wake-up).
template <class Args, class Items, class Macs, class Run>
void ForItemsOfGroup(const Cpu& cpu, absl::Span<const Args> group, int64_t inline_macs,
                     const Items& items_of, const Macs& macs_of, const Run& run_item) {
  int64_t items = 0, macs = 0;
  for (const Args& args : group) {
    items += items_of(args);
    macs += macs_of(args);
  }
  const auto run = [&](int64_t item, int) {
    for (const Args& args : group) {
      const int64_t own = items_of(args);
      if (item < own) return run_item(args, item);
      item -= own;
    }
  };
  if (macs <= inline_macs) {
    for (int64_t item = 0; item < items; ++item) run(item, 0);
  } else {
    cpu.pool->ParallelFor(items, run);
  }
}

}  // namespace bottega
