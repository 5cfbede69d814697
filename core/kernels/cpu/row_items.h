#pragma once

#include <algorithm>
#include <cstdint>

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

}  // namespace bottega
