#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/tensor/bf16.h"
#include "core/tensor/dtype.h"

// One test body for every instruction set of this machine and 1, 2, 4 threads: the outputs must be
// the same bytes.

namespace bottega {

struct NamedCpu {
  std::string name;
  std::unique_ptr<ThreadPool> pool;
  Cpu cpu;
};

// The first is scalar with one thread.
inline std::vector<NamedCpu>& EveryCpu() {
  static std::vector<NamedCpu> all = [] {
    std::vector<NamedCpu> made;
    for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      if (!HasIsa(isa)) continue;
      for (int threads : {1, 2, 4}) {
        auto pool = std::make_unique<ThreadPool>(threads);
        const Cpu cpu = MakeCpu(isa, pool.get());
        made.push_back(
            {std::string(Name(isa)) + "/" + std::to_string(threads), std::move(pool), cpu});
      }
    }
    return made;
  }();
  return all;
}

inline const Cpu& ScalarCpu() { return EveryCpu().front().cpu; }
inline const Cpu& BestCpu() { return EveryCpu().back().cpu; }

template <class T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// compute(cpu) -> std::vector<T>; returns the scalar result.
template <class Compute>
auto OnEveryCpu(const Compute& compute) {
  const auto expected = compute(ScalarCpu());
  for (const NamedCpu& named : EveryCpu()) {
    EXPECT_TRUE(SameBytes(compute(named.cpu), expected)) << named.name;
  }
  return expected;
}

inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// The bytes of values in dtype, and back.
inline std::vector<std::byte> Encode(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> bytes(values.size() * SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[i * 4], &values[i], 4);
    } else {
      const BF16 rounded = RoundToBF16(values[i]);
      std::memcpy(&bytes[i * 2], &rounded, 2);
    }
  }
  return bytes;
}

inline std::vector<float> Decode(const std::vector<std::byte>& bytes, DType dtype) {
  std::vector<float> values(bytes.size() / SizeOf(dtype));
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) {
      std::memcpy(&values[i], &bytes[i * 4], 4);
    } else {
      BF16 stored;
      std::memcpy(&stored, &bytes[i * 2], 2);
      values[i] = Widen(stored);
    }
  }
  return values;
}

// What the element becomes when stored as dtype.
inline std::vector<float> Stored(const std::vector<float>& values, DType dtype) {
  return Decode(Encode(values, dtype), dtype);
}

inline constexpr DType kEveryDType[] = {DType::kF32, DType::kBF16};

}  // namespace bottega
