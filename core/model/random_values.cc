#include "core/model/random_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/tensor/bf16.h"

namespace bottega {
namespace {

constexpr uint64_t kStep = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Of 16 random bits, about their mean.
float Centred(uint64_t bits) { return static_cast<float>(bits & 0xffff) - 32767.5f; }

// What such values are multiplied by: their deviation is 2^16 / sqrt(12).
float Factor(double deviation) { return static_cast<float>(deviation * std::sqrt(12.0) / 65536.0); }

// The root mean square of all integers of the format.
double RootMeanSquare(WeightFormat format) {
  const int least = format == WeightFormat::kInt4 ? -8 : -127;
  const int most = format == WeightFormat::kInt4 ? 7 : 127;
  double squares = 0;
  for (int q = least; q <= most; ++q) squares += q * q;
  return std::sqrt(squares / (most - least + 1));
}

template <class T>
void Put(std::span<std::byte> out, size_t index, T value) {
  std::memcpy(out.data() + index * sizeof(T), &value, sizeof(T));
}

}  // namespace

RandomValues::RandomValues(uint64_t seed, std::string_view stream) : key_(Mix(seed + kStep)) {
  for (const char c : stream) key_ = Mix((key_ ^ static_cast<unsigned char>(c)) + kStep);
}

uint64_t RandomValues::Next() { return Mix(key_ + kStep * ++at_); }

void RandomValues::Fill(std::span<std::byte> out) {
  while (!out.empty()) {
    const uint64_t bits = Next();
    const size_t bytes = std::min(out.size(), sizeof(bits));
    std::memcpy(out.data(), &bits, bytes);
    out = out.subspan(bytes);
  }
}

void RandomValues::Uniform(DType dtype, double deviation, std::span<std::byte> out) {
  const float factor = Factor(deviation);
  const size_t count = out.size() / SizeOf(dtype);
  for (size_t i = 0; i < count; i += 4) {
    uint64_t bits = Next();
    for (size_t j = i; j < std::min(i + 4, count); ++j, bits >>= 16) {
      const float value = Centred(bits) * factor;
      if (dtype == DType::kF32) {
        Put(out, j, value);
      } else {
        Put(out, j, RoundToBF16(value));
      }
    }
  }
}

void RandomValues::Normal(double deviation, std::span<std::byte> out) {
  const float factor = Factor(deviation / 2);  // a sum of four has twice the deviation of one
  for (size_t i = 0; i < out.size() / sizeof(float); ++i) {
    const uint64_t bits = Next();
    // Exact: multiples of 1/2 below 2^18.
    const float sum =
        Centred(bits) + Centred(bits >> 16) + Centred(bits >> 32) + Centred(bits >> 48);
    Put(out, i, sum * factor);
  }
}

void RandomValues::Integers(WeightFormat format, std::span<std::byte> out) {
  Fill(out);
  if (format == WeightFormat::kInt4) return;
  // A stored 0 would be -128, which the format has not.
  for (std::byte& value : out) value = value == std::byte{0} ? std::byte{128} : value;
}

void RandomValues::Scales(WeightFormat format, double deviation, std::span<std::byte> out) {
  const BF16 scale = RoundToBF16(static_cast<float>(deviation / RootMeanSquare(format)));
  uint64_t bits = 0;
  for (size_t i = 0; i < out.size() / sizeof(BF16); ++i, bits >>= 1) {
    if (i % 64 == 0) bits = Next();
    Put(out, i, BF16{static_cast<uint16_t>(scale.bits ^ (bits & 1) << 15)});
  }
}

}  // namespace bottega
