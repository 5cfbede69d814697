#include "core/tensor/bf16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace bottega {
namespace {

TEST(BF16, WideningThenRoundingIsTheIdentity) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const BF16 value{static_cast<uint16_t>(bits)};
    const float wide = Widen(value);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(Widen(RoundToBF16(wide)))) << bits;
    } else {
      EXPECT_EQ(RoundToBF16(wide).bits, bits);
    }
  }
}

// The nearest of the two neighbours, in exact arithmetic (f64 holds f32 differences exactly here).
TEST(BF16, RoundsToTheNearestAndTiesToEven) {
  for (uint64_t step = 0; step < 0x7f7f0000u; step += 8191) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(step));
    const uint16_t below = static_cast<uint16_t>(step >> 16);
    const double down = static_cast<double>(value) - Widen({below});
    const double up = static_cast<double>(Widen({static_cast<uint16_t>(below + 1)})) - value;
    const bool goes_up = up < down || (up == down && (below & 1));
    const uint16_t expected = static_cast<uint16_t>(below + goes_up);
    ASSERT_EQ(RoundToBF16(value).bits, expected) << value;
    ASSERT_EQ(RoundToBF16(-value).bits, expected | 0x8000) << value;
  }
}

TEST(BF16, Ends) {
  EXPECT_EQ(RoundToBF16(3.4e38f).bits, 0x7f80);  // past the largest: infinity
  EXPECT_EQ(RoundToBF16(std::bit_cast<float>(0x7fffffffu)).bits & 0x7fc0, 0x7fc0);  // stays a NaN
  EXPECT_TRUE(std::isnan(Widen(RoundToBF16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_EQ(RoundToBF16(std::bit_cast<float>(0x00010000u)).bits, 1);  // denormals are kept
}

}  // namespace
}  // namespace bottega
