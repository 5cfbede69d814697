#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/base/crc32c.h"
#include "core/exchange/exchange_layout.h"

namespace bottega {

// An expert whose output looks random but is a pure function of (layer, expert, row), so that a
// lost, mixed or changed row shows. Always finite: the top exponent bit is off.
inline void PureExpert(const ExchangeShape& shape, LayerId layer, ExpertId expert,
                       const std::byte* row, std::byte* out) {
  uint64_t state =
      uint64_t{Crc32c(row, shape.row_bytes())} << 32 | uint64_t{layer.value} << 16 | expert.value;
  const size_t words = shape.row_bytes() / 2;
  for (size_t i = 0; i < words; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    uint16_t word = static_cast<uint16_t>(state >> 40);
    if (shape.row_type == DType::kBF16 || i % 2 == 1) word &= 0xbfff;  // the upper half of a float
    std::memcpy(out + i * 2, &word, sizeof word);
  }
}

}  // namespace bottega
