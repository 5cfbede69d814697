#include "core/model/random_values.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/crc32c.h"
#include "core/tensor/bf16.h"
#include "gtest/gtest.h"

namespace bottega {
namespace {

constexpr size_t kCount = 100'000;

struct Moments {
  double mean = 0;
  double deviation = 0;
};
Moments MomentsOf(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) sum += value, squares += value * value;
  const double count = static_cast<double>(values.size());
  return {sum / count, std::sqrt(squares / count - sum / count * (sum / count))};
}

template <class T, class Convert>
std::vector<double> As(const std::vector<std::byte>& bytes, const Convert& convert) {
  std::vector<double> values;
  for (size_t at = 0; at < bytes.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, &bytes[at], sizeof(T));
    values.push_back(convert(value));
  }
  return values;
}

void ExpectMoments(const std::vector<double>& values, double deviation) {
  const Moments moments = MomentsOf(values);
  EXPECT_NEAR(moments.mean, 0, deviation * 0.02);
  EXPECT_NEAR(moments.deviation, deviation, deviation * 0.02);
}

TEST(RandomValues, HaveTheDeviationAskedFor) {
  RandomValues random(1, "x");
  std::vector<std::byte> bytes(kCount * sizeof(float));
  const auto same = [](float value) { return double{value}; };
  random.Uniform(DType::kF32, 0.25, bytes);
  ExpectMoments(As<float>(bytes, same), 0.25);
  random.Normal(3.0, bytes);
  ExpectMoments(As<float>(bytes, same), 3.0);
  size_t far = 0;  // a uniform value is never two deviations away, of normal ones 4.6 % are
  for (const double value : As<float>(bytes, same)) far += std::fabs(value) > 6.0;
  EXPECT_NEAR(static_cast<double>(far) / kCount, 0.046, 0.01);
  bytes.resize(kCount * sizeof(BF16));
  random.Uniform(DType::kBF16, 0.01, bytes);
  ExpectMoments(As<BF16>(bytes, [](BF16 value) { return double{Widen(value)}; }), 0.01);
}

TEST(RandomValues, IntegersTimesScalesHaveIt) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    RandomValues random(1, "x");
    std::vector<std::byte> scales(kCount / 10 * sizeof(BF16)), integers(kCount);
    random.Integers(format, integers);
    random.Scales(format, 0.5, scales);
    std::vector<double> values;
    for (size_t i = 0; i < kCount; ++i) {
      BF16 scale;
      std::memcpy(&scale, &scales[i / 10 * sizeof(BF16)], sizeof(scale));
      const int stored = std::to_integer<int>(integers[i]);
      const int q = format == WeightFormat::kInt8 ? stored - 128 : (stored & 15) - 8;
      EXPECT_GE(q, format == WeightFormat::kInt8 ? -127 : -8);
      values.push_back(q * double{Widen(scale)});
    }
    ExpectMoments(values, 0.5);
  }
}

TEST(RandomValues, SeedAndStreamDecide) {
  auto first = [](uint64_t seed, std::string_view stream) {
    std::vector<std::byte> bytes(24);
    RandomValues(seed, stream).Integers(WeightFormat::kInt4, bytes);
    return bytes;
  };
  EXPECT_EQ(first(1, "layer.1"), first(1, "layer.1"));
  EXPECT_NE(first(1, "layer.1"), first(2, "layer.1"));
  EXPECT_NE(first(1, "layer.1"), first(1, "layer.2"));
  EXPECT_NE(first(1, ""), first(2, ""));
}

// Digests of models that others have made must come out again, on any machine.
TEST(RandomValues, AreTheSameForEver) {
  RandomValues random(42, "layer.3.expert.5");
  std::vector<std::byte> bytes(4 * 1000);
  uint32_t crc = 0;
  random.Uniform(DType::kF32, 0.1, bytes);
  crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
  random.Uniform(DType::kBF16, 0.1, bytes);
  crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
  random.Normal(0.1, bytes);
  crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    random.Integers(format, bytes);
    crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
    random.Scales(format, 0.1, bytes);
    crc = ExtendCrc32c(crc, bytes.data(), bytes.size());
  }
  EXPECT_EQ(crc, 3887609534u);
}

}  // namespace
}  // namespace bottega
