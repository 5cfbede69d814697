#pragma once

#include <bit>
#include <cstdint>

namespace bottega {

// bfloat16 as stored: the upper half of an f32. No arithmetic: widen, compute in f32, round.
struct BF16 {
  uint16_t bits;
  friend constexpr bool operator==(BF16, BF16) = default;
};
static_assert(sizeof(BF16) == 2);

constexpr float Widen(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Round to nearest, ties to even; denormals kept; a NaN stays a NaN (its payload's upper bits, made
// quiet, so that cutting the payload cannot turn it into an infinity).
constexpr BF16 RoundToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace bottega
