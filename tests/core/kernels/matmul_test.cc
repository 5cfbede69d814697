#include "core/kernels/matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

struct Packed {
  std::vector<std::byte> bytes;
  PackedMatrix matrix;
};

Packed Pack(const std::vector<float>& w, int64_t n, int64_t k, DType dtype) {
  Packed packed;
  packed.bytes.resize(PackedBytes(dtype, n, k));
  const RowBlock block = {.data = w.data(), .dtype = DType::kF32, .rows = n};
  PackTiles({&block, 1}, k, dtype, packed.bytes.data());
  packed.matrix = {.data = packed.bytes.data(), .dtype = dtype, .n = n, .k = k};
  return packed;
}

// The contract, literally.
float Dot(const float* x, const float* w, int64_t k) {
  float acc = 0.0f;
  for (int64_t i = 0; i < k; ++i) acc = std::fma(x[i], w[i], acc);
  return acc;
}

struct Shape {
  int64_t m, n, k;
};

TEST(MatMul, EqualsTheDefinitionOnEveryCpu) {
  const Shape shapes[] = {{1, 1, 1},     {1, 7, 17},    {2, 16, 7},   {3, 17, 33},  {4, 48, 100},
                          {5, 65, 9},    {6, 130, 20},  {7, 64, 120}, {13, 40, 56}, {98, 72, 40},
                          {1, 56, 1080}, {3, 24, 2880}, {9, 1, 5},    {2, 5, 0}};
  for (DType dtype : kEveryDType) {
    for (const auto& [m, n, k] : shapes) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << " m " << m << " n " << n << " k " << k);
      const int64_t x_stride = k + 3, y_stride = n + 5;
      const auto x = RandomFloats(m * x_stride, 1);
      const auto w = RandomFloats(n * k, 2);
      const auto stored = Stored(w, dtype);
      const Packed packed = Pack(w, n, k, dtype);
      for (bool add : {false, true}) {
        const auto before = RandomFloats(m * y_stride, 3);
        const auto y = OnEveryCpu([&, m = m, n = n](const Cpu& cpu) {
          std::vector<float> out = before;
          MatMul(cpu, {.x = x.data(),
                       .x_stride = x_stride,
                       .m = m,
                       .w = packed.matrix,
                       .y = out.data(),
                       .y_stride = y_stride,
                       .add = add});
          return out;
        });
        std::vector<float> expected = before;  // columns past n stay as they were
        for (int64_t row = 0; row < m; ++row) {
          for (int64_t column = 0; column < n; ++column) {
            const float dot = Dot(&x[row * x_stride], stored.data() + column * k, k);
            float& out = expected[row * y_stride + column];
            out = add ? out + dot : dot;
          }
        }
        EXPECT_TRUE(SameBytes(y, expected)) << "add " << add;
      }
    }
  }
}

TEST(MatMul, IsCloseToExactArithmetic) {
  const int64_t n = 40, k = 2880;
  const auto x = RandomFloats(k, 4), w = RandomFloats(n * k, 5);
  const Packed packed = Pack(w, n, k, DType::kF32);
  std::vector<float> y(n);
  MatMul(BestCpu(), {.x = x.data(), .m = 1, .w = packed.matrix, .y = y.data()});
  for (int64_t column = 0; column < n; ++column) {
    double exact = 0;
    for (int64_t i = 0; i < k; ++i) exact += static_cast<double>(x[i]) * w[column * k + i];
    EXPECT_NEAR(y[column], exact, 1e-3);
  }
}

TEST(MatMul, ARowIsTheSameAloneAndInAnyBatch) {
  const int64_t rows = 210, n = 100, k = 333;
  const auto x = RandomFloats(rows * k, 6), w = RandomFloats(n * k, 7);
  for (DType dtype : kEveryDType) {
    const Packed packed = Pack(w, n, k, dtype);
    const auto batch_of = [&](const Cpu& cpu, int64_t first, int64_t count) {
      std::vector<float> y(count * n);
      MatMul(cpu, {.x = &x[first * k],
                   .x_stride = k,
                   .m = count,
                   .w = packed.matrix,
                   .y = y.data(),
                   .y_stride = n});
      return y;
    };
    const auto whole = OnEveryCpu([&](const Cpu& cpu) { return batch_of(cpu, 0, rows); });
    for (const NamedCpu& named : EveryCpu()) {
      for (const auto& [first, count] :
           {std::pair<int64_t, int64_t>{0, 1}, {5, 1}, {11, 7}, {90, 97}}) {
        const auto part = batch_of(named.cpu, first, count);
        EXPECT_EQ(std::memcmp(part.data(), &whole[first * n], part.size() * sizeof(float)), 0)
            << named.name << " rows " << first << "+" << count;
      }
    }
  }
}

TEST(MatMul, AGroupEqualsItsMembers) {
  const Shape shapes[] = {{3, 70, 50}, {0, 16, 50}, {120, 33, 50}, {1, 200, 50}};
  const auto x = RandomFloats(120 * 50, 8);
  std::vector<Packed> weights;
  for (const Shape& shape : shapes) {
    weights.push_back(
        Pack(RandomFloats(shape.n * shape.k, 9 + shape.n), shape.n, shape.k, DType::kBF16));
  }
  const auto run = [&](const Cpu& cpu, bool together) {
    std::vector<std::vector<float>> outputs;
    std::vector<MatMulArgs> group;
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.emplace_back(shapes[i].m * shapes[i].n);
      group.push_back({.x = x.data(),
                       .x_stride = 50,
                       .m = shapes[i].m,
                       .w = weights[i].matrix,
                       .y = outputs.back().data(),
                       .y_stride = shapes[i].n});
    }
    if (together) {
      MatMulGroup(cpu, group);
    } else {
      for (const MatMulArgs& args : group) MatMul(cpu, args);
    }
    std::vector<float> all;
    for (const auto& out : outputs) all.insert(all.end(), out.begin(), out.end());
    return all;
  };
  const auto together = OnEveryCpu([&](const Cpu& cpu) { return run(cpu, true); });
  EXPECT_TRUE(SameBytes(together, run(ScalarCpu(), false)));
}

TEST(PackTiles, LaysTilesOutAndPadsWithZeros) {
  const std::vector<float> q = {1, 2, 3, 4}, v = {5, 6};  // 2 rows and 1 row of width 2
  const auto v_bf16 = Encode(v, DType::kBF16);
  const RowBlock blocks[] = {{q.data(), DType::kF32, 2}, {v_bf16.data(), DType::kBF16, 1}};
  for (DType dtype : kEveryDType) {
    std::vector<std::byte> packed(PackedBytes(dtype, 3, 2), std::byte{0xff});
    PackTiles(blocks, 2, dtype, packed.data());
    std::vector<float> expected(32, 0.0f);
    expected[0] = 1, expected[1] = 3, expected[2] = 5;
    expected[16] = 2, expected[17] = 4, expected[18] = 6;
    EXPECT_EQ(Decode(packed, dtype), expected);
  }
}

// A NaN or an infinity in one row stays in that row.
TEST(MatMul, BadRowsDoNotSpread) {
  const int64_t m = 8, n = 20, k = 30;
  auto x = RandomFloats(m * k, 10);
  const Packed packed = Pack(RandomFloats(n * k, 11), n, k, DType::kBF16);
  x[3 * k + 4] = std::numeric_limits<float>::quiet_NaN();
  for (const NamedCpu& named : EveryCpu()) {
    std::vector<float> y(m * n);
    MatMul(
        named.cpu,
        {.x = x.data(), .x_stride = k, .m = m, .w = packed.matrix, .y = y.data(), .y_stride = n});
    for (int64_t i = 0; i < m * n; ++i) EXPECT_EQ(std::isnan(y[i]), i / n == 3) << named.name;
  }
}

}  // namespace
}  // namespace bottega
