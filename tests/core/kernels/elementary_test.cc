#include "core/kernels/elementary.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/cpu/primitives.h"
#include "core/kernels/swiglu.h"
#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Error of got in units of the last place of the exact value (of the smallest denormal near zero).
double Ulps(float got, double exact) {
  const int exponent = std::max(std::ilogb(exact), -126);
  return std::abs(got - exact) / std::ldexp(1.0, exponent - 23);
}

// Floats of both signs spread over all exponents, in [-104, 88.7].
std::vector<float> Spread(uint32_t step) {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < 0x7f800000u; bits += step) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (x < 88.7f) values.push_back(x);
    if (x < 104.0f) values.push_back(-x);
  }
  return values;
}

TEST(Exp, IsBelowOneUlpAndExactAtTheEnds) {
  double worst = 0;
  for (const float x : Spread(7919)) {
    worst = std::max(worst, Ulps(Exp(x), std::exp(static_cast<double>(x))));
  }
  RecordProperty("worst_ulp", std::to_string(worst));
  EXPECT_LT(worst, 1.0);
  EXPECT_EQ(Exp(0.0f), 1.0f);
  EXPECT_EQ(Exp(-0.0f), 1.0f);
  EXPECT_EQ(Exp(-kInf), 0.0f);
  EXPECT_EQ(Exp(kInf), kInf);
  EXPECT_EQ(Exp(89.0f), kInf);
  EXPECT_EQ(Exp(-104.0f), 0.0f);
  EXPECT_GT(Exp(-103.0f), 0.0f);  // denormal, not flushed
  EXPECT_TRUE(std::isnan(Exp(kNan)));
}

TEST(Exp, LanesEqualTheScalarFunction) {
  std::vector<float> x = Spread(15013);
  for (float special : {0.0f, -0.0f, kInf, -kInf, 200.0f, -200.0f, 1e30f, -1e30f})
    x.push_back(special);
  std::vector<float> expected(x.size());
  for (size_t i = 0; i < x.size(); ++i) expected[i] = Exp(x[i]);
  const auto terms = OnEveryCpu([&](const Cpu& cpu) {
    std::vector<float> y(x.size());
    cpu.primitives->exp_sum({.x = x.data(),
                             .count = static_cast<int64_t>(x.size()),
                             .shift = 0.0f,
                             .factor = 1.0f,
                             .terms = y.data()});
    return y;
  });
  EXPECT_TRUE(SameBytes(terms, expected));
}

TEST(Silu, LanesEqualTheScalarFunctionAndTheMaths) {
  std::vector<float> gates;
  for (float x = -110.0f; x < 110.0f; x += 0.0137f) gates.push_back(x);
  const int64_t width = static_cast<int64_t>(gates.size());
  std::vector<float> gate_up(GateUpOutputs(width), 1.0f);
  for (int64_t c = 0; c < width; ++c) gate_up[c / 16 * 32 + c % 16] = gates[c];
  const auto out = OnEveryCpu([&](const Cpu& cpu) {
    std::vector<float> y(width);
    SwiGlu(cpu, {.gate_up = gate_up.data(), .rows = 1, .width = width, .out = y.data()});
    return y;
  });
  for (int64_t c = 0; c < width; ++c) {
    ASSERT_EQ(out[c], Silu(gates[c]));
    const double exact = gates[c] / (1.0 + std::exp(-static_cast<double>(gates[c])));
    ASSERT_NEAR(out[c], exact, std::abs(exact) * 3e-7 + 1e-36) << gates[c];
    ASSERT_NEAR(Sigmoid(gates[c]), 1.0 / (1.0 + std::exp(-static_cast<double>(gates[c]))), 2e-7);
  }
}

TEST(Log, IsGoodToF64) {
  double worst = 0;
  for (double x = 0x1p-1000; x < 0x1p1000; x *= 1.0 + 1.0 / 64.1) {
    worst = std::max(worst, std::abs(Log(x) / std::log(x) - 1.0));
  }
  for (double x = 0.5; x < 2.0; x += 0.00013) {
    worst = std::max(worst, std::abs(Log(x) - std::log(x)) / std::max(1e-2, std::abs(std::log(x))));
  }
  EXPECT_LT(worst, 1e-15);
  EXPECT_EQ(Log(1.0), 0.0);
}

TEST(SinCos, IsTheRoundedValueForAnglesUpToAMillion) {
  int64_t count = 0, unequal = 0;
  const auto probe = [&](float x) {
    const SinCos got = SinCosOf(x);
    const float sine = static_cast<float>(std::sin(static_cast<double>(x)));
    const float cosine = static_cast<float>(std::cos(static_cast<double>(x)));
    count += 2;
    unequal += (got.sin != sine) + (got.cos != cosine);
    ASSERT_LE(Ulps(got.sin, std::sin(static_cast<double>(x))), 0.51) << x;
    ASSERT_LE(Ulps(got.cos, std::cos(static_cast<double>(x))), 0.51) << x;
  };
  for (uint32_t bits = 0x20000000; bits < 0x49800000; bits += 4999) {
    probe(std::bit_cast<float>(bits));
    probe(-std::bit_cast<float>(bits));
  }
  for (int position = 0; position < 1 << 20; position += 37) probe(static_cast<float>(position));
  EXPECT_LE(unequal, count / 100000) << "of " << count;
  EXPECT_EQ(SinCosOf(0.0f).sin, 0.0f);
  EXPECT_EQ(SinCosOf(0.0f).cos, 1.0f);
}

}  // namespace
}  // namespace bottega
