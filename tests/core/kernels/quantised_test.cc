#include "core/kernels/quantised.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/elementary.h"
#include "core/tensor/aligned_buffer.h"
#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kInt8, WeightFormat::kInt4};

TEST(QuantGroups, AreTheLargestThatDivide) {
  for (int64_t k : {2880, 1080}) {
    EXPECT_EQ(QuantGroup(WeightFormat::kInt8, k), 72) << k;
    EXPECT_EQ(QuantGroup(WeightFormat::kInt4, k), 120) << k;
  }
  for (int64_t k : {4096, 2048, 768}) {
    EXPECT_EQ(QuantGroup(WeightFormat::kInt8, k), 64) << k;
    EXPECT_EQ(QuantGroup(WeightFormat::kInt4, k), 128) << k;
  }
  EXPECT_EQ(WeightGroup(WeightFormat::kInt4, 2880), 40);
  EXPECT_EQ(WeightGroup(WeightFormat::kInt4, 4096), 32);
  EXPECT_EQ(WeightGroup(WeightFormat::kInt8, 4096), 64);
  EXPECT_EQ(QuantGroup(WeightFormat::kInt8, 56), 56);
  EXPECT_EQ(QuantGroup(WeightFormat::kInt8, 12), 0);
}

// A matrix as integers and scales, read back from its panels by the layout in the header.
struct Integers {
  std::vector<int> q;        // [n, k]
  std::vector<float> scale;  // [n, k / S]
};

Integers Decode(const QuantisedShape& shape, const std::byte* at) {
  const int64_t s = shape.weight_group(), parts = shape.group() / s, all = shape.k / s;
  Integers out{std::vector<int>(shape.n * shape.k), std::vector<float>(shape.n * all)};
  for (int64_t first = 0; first < shape.tiles(); first += shape.span_tiles()) {
    const int64_t end = std::min(shape.tiles(), first + shape.span_tiles());
    for (int64_t tile = first; tile < end; tile += kQuantPanelTiles) {
      const int64_t tiles = std::min(kQuantPanelTiles, end - tile);
      for (int64_t g = 0; g < shape.k / shape.group(); ++g) {
        const BF16* scales = reinterpret_cast<const BF16*>(at);
        at += (parts * tiles * 32 + 63) / 64 * 64;
        const uint8_t* values = reinterpret_cast<const uint8_t*>(at);
        at += shape.group() * tiles * (shape.format == WeightFormat::kInt4 ? 8 : 16);
        for (int64_t lane = 0; lane < tiles * 16; ++lane) {
          const int64_t row = tile * 16 + lane;
          for (int64_t i = 0; i < shape.group(); ++i) {
            const int64_t quad = shape.format == WeightFormat::kInt4 ? i / 8 : i / 4;
            uint8_t stored = values[((quad * tiles + lane / 16) * 16 + lane % 16) * 4 + i % 4];
            if (shape.format == WeightFormat::kInt4) stored = i % 8 < 4 ? stored & 15 : stored >> 4;
            const int q = stored - ZeroPoint(shape.format);
            const float scale = Widen(scales[(i / s * tiles + lane / 16) * 16 + lane % 16]);
            if (row >= shape.n) {
              EXPECT_EQ(q, 0);
              EXPECT_EQ(scale, 0.0f);
              continue;
            }
            out.q[row * shape.k + g * shape.group() + i] = q;
            out.scale[row * all + g * parts + i / s] = scale;
          }
        }
      }
    }
  }
  return out;
}

struct Packed {
  AlignedBuffer bytes;
  QuantisedMatrix matrix;
  Integers integers;
};

Packed Pack(const QuantisedShape& shape, const std::vector<float>& w) {
  Packed packed{AlignedBuffer(shape.bytes()), {}, {}};
  PackQuantised(
      shape, [&](int64_t row, float* out) { std::copy_n(&w[row * shape.k], shape.k, out); },
      packed.bytes.data());
  packed.matrix = {packed.bytes.data(), shape};
  packed.integers = Decode(shape, packed.bytes.data());
  return packed;
}

struct Rows {
  AlignedBuffer memory;
  QuantisedRows rows;
};
Rows QuantiseOn(const Cpu& cpu, WeightFormat format, const std::vector<float>& x, int64_t m,
                int64_t k) {
  Rows out{AlignedBuffer(QuantisedRows::Bytes(format, m, k)), {}};
  out.rows = QuantisedRows::In(out.memory.data(), format, m, k);
  Quantise(cpu, {.x = x.data(), .x_stride = k, .rows = m, .to = out.rows});
  return out;
}

// The contract, literally: one row of activations.
struct QuantisedRow {
  std::vector<int> q;
  std::vector<float> scale;
};
QuantisedRow QuantiseLiterally(WeightFormat format, const float* x, int64_t k) {
  QuantisedRow out{std::vector<int>(k), {}};
  const int64_t group = QuantGroup(format, k);
  for (int64_t g = 0; g < k / group; ++g) {
    float max = 0;
    for (int64_t i = 0; i < group; ++i) max = std::max(max, std::fabs(x[g * group + i]));
    const float factor = 127.0f / max;
    for (int64_t i = 0; i < group; ++i) {
      out.q[g * group + i] = static_cast<int>(std::nearbyint(x[g * group + i] * factor));
    }
    out.scale.push_back(max / 127.0f);
  }
  return out;
}

// And one output.
float Output(const QuantisedRow& x, const Integers& w, const QuantisedShape& shape, int64_t n) {
  const int64_t s = shape.weight_group(), all = shape.k / s;
  float acc = 0;
  for (int64_t part = 0; part < all; ++part) {
    int64_t dot = 0;
    for (int64_t i = part * s; i < (part + 1) * s; ++i) dot += x.q[i] * w.q[n * shape.k + i];
    const float scale = x.scale[part * s / shape.group()] * w.scale[n * all + part];
    acc = std::fma(static_cast<float>(dot), scale, acc);
  }
  return acc;
}

struct Shape {
  int64_t m, n, k;
};
constexpr Shape kShapes[] = {{1, 1, 8},     {1, 48, 120},  {2, 17, 56},   {3, 100, 96},
                             {5, 49, 240},  {7, 33, 128},  {8, 64, 64},   {9, 40, 360},
                             {64, 50, 120}, {65, 16, 256}, {131, 95, 72}, {1, 30, 2880},
                             {21, 50, 168}, {9, 50, 168},  {3, 20, 1432}};

TEST(QuantisedMatMul, EqualsTheDefinitionOnEveryCpu) {
  for (WeightFormat format : kFormats) {
    for (const auto& [m, n, k] : kShapes) {
      SCOPED_TRACE(testing::Message() << Name(format) << " m " << m << " n " << n << " k " << k);
      const int64_t stride = n + 3;
      const auto x = RandomFloats(m * k, 1);
      const Packed w = Pack({.format = format, .n = n, .k = k}, RandomFloats(n * k, 2, 0.02f));
      for (bool add : {false, true}) {
        const auto before = RandomFloats(m * stride, 3);
        const auto y = OnEveryCpu([&, m = m, k = k](const Cpu& cpu) {
          std::vector<float> out = before;
          const Rows rows = QuantiseOn(cpu, format, x, m, k);
          const QuantisedMatMulArgs args = {.x = rows.rows,
                                            .m = m,
                                            .w = w.matrix,
                                            .y = out.data(),
                                            .y_stride = stride,
                                            .add = add};
          QuantisedMatMulGroup(cpu, {&args, 1});
          return out;
        });
        std::vector<float> expected = before;
        for (int64_t row = 0; row < m; ++row) {
          const QuantisedRow quantised = QuantiseLiterally(format, &x[row * k], k);
          for (int64_t column = 0; column < n; ++column) {
            const float value = Output(quantised, w.integers, w.matrix.shape, column);
            float& out = expected[row * stride + column];
            out = add ? out + value : value;
          }
        }
        EXPECT_TRUE(SameBytes(y, expected)) << "add " << add;
      }
    }
  }
}

float Silu(float x) { return x / (1.0f + Exp(-x)); }

TEST(QuantisedGateUp, EqualsTheDefinitionOnEveryCpu) {
  for (WeightFormat format : kFormats) {
    for (const auto& [m, width, hidden] :
         {Shape{1, 56, 120}, {3, 1080, 96}, {9, 768, 64}, {70, 128, 56}, {2, 8, 8}}) {
      SCOPED_TRACE(testing::Message() << Name(format) << " m " << m << " width " << width);
      const QuantisedShape shape = GateUpShape(format, width, hidden);
      const auto x = RandomFloats(m * hidden, 4);
      const Packed w = Pack(shape, RandomFloats(2 * width * hidden, 5, 0.1f));
      const auto bytes = OnEveryCpu([&, m = m, width = width, hidden = hidden](const Cpu& cpu) {
        const Rows rows = QuantiseOn(cpu, format, x, m, hidden);
        std::vector<std::byte> memory(QuantisedRows::Bytes(format, m, width));
        const QuantisedRows out = QuantisedRows::In(memory.data(), format, m, width);
        const QuantisedGateUpArgs args = {.x = rows.rows, .m = m, .w = w.matrix, .out = out};
        QuantisedGateUpGroup(cpu, {&args, 1});
        return memory;
      });
      std::vector<std::byte> memory = bytes;
      const QuantisedRows out = QuantisedRows::In(memory.data(), format, m, width);
      for (int64_t row = 0; row < m; ++row) {
        const QuantisedRow in = QuantiseLiterally(format, &x[row * hidden], hidden);
        std::vector<float> inner(width);
        for (int64_t i = 0; i < 2 * width; ++i) {
          const GateUpRow from = GateUpRow::Of(i);
          if (from.up) continue;
          inner[from.row] =
              Silu(Output(in, w.integers, shape, i)) * Output(in, w.integers, shape, i + 8);
        }
        const QuantisedRow expected = QuantiseLiterally(format, inner.data(), width);
        const QuantisedRows got = out.From(row);
        for (int64_t i = 0; i < width; ++i) ASSERT_EQ(got.values[i], expected.q[i]) << i;
        for (int64_t g = 0; g < got.groups(); ++g) ASSERT_EQ(got.scales[g], expected.scale[g]);
        const int64_t s = WeightGroup(format, width);
        for (int64_t part = 0; part < got.weight_groups(); ++part) {
          int sum = 0;
          for (int64_t i = part * s; i < (part + 1) * s; ++i) sum += expected.q[i];
          ASSERT_EQ(got.offsets[part], -ZeroPoint(format) * sum);
        }
      }
    }
  }
}

TEST(QuantisedMatMul, ARowIsTheSameAloneAndInAnyBatch) {
  const int64_t rows = 150, n = 100, k = 240;
  const auto x = RandomFloats(rows * k, 6);
  for (WeightFormat format : kFormats) {
    const Packed w = Pack({.format = format, .n = n, .k = k}, RandomFloats(n * k, 7));
    const auto batch_of = [&](const Cpu& cpu, int64_t first, int64_t count) {
      const Rows from = QuantiseOn(
          cpu, format, {x.begin() + first * k, x.begin() + (first + count) * k}, count, k);
      std::vector<float> y(count * n);
      const QuantisedMatMulArgs args = {
          .x = from.rows, .m = count, .w = w.matrix, .y = y.data(), .y_stride = n};
      QuantisedMatMulGroup(cpu, {&args, 1});
      return y;
    };
    const auto whole = batch_of(BestCpu(), 0, rows);
    for (const NamedCpu& named : EveryCpu()) {
      for (const auto& [first, count] : {std::pair{0, 1}, {7, 5}, {60, 90}, {149, 1}}) {
        const auto part = batch_of(named.cpu, first, count);
        EXPECT_EQ(std::memcmp(part.data(), &whole[first * n], part.size() * 4), 0)
            << named.name << " " << first << " " << count;
      }
    }
  }
}

TEST(QuantisedMatMul, AGroupEqualsItsMembers) {
  const int64_t k = 120;
  for (WeightFormat format : kFormats) {
    const auto x = RandomFloats(20 * k, 8);
    const Rows rows = QuantiseOn(BestCpu(), format, x, 20, k);
    std::vector<Packed> weights;
    for (int64_t n : {70, 5, 33}) {
      weights.push_back(Pack({.format = format, .n = n, .k = k}, RandomFloats(n * k, 9)));
    }
    std::vector<QuantisedMatMulArgs> group;
    std::vector<std::vector<float>> together(3, std::vector<float>(20 * 70)), apart = together;
    for (size_t i = 0; i < 3; ++i) {
      group.push_back({.x = rows.rows.From(static_cast<int64_t>(i)),
                       .m = static_cast<int64_t>(i * 9),  // 0 of the first
                       .w = weights[i].matrix,
                       .y = together[i].data(),
                       .y_stride = 70});
    }
    QuantisedMatMulGroup(BestCpu(), group);
    for (size_t i = 0; i < 3; ++i) {
      group[i].y = apart[i].data();
      QuantisedMatMulGroup(BestCpu(), {&group[i], 1});
      EXPECT_TRUE(SameBytes(together[i], apart[i]));
    }
  }
}

TEST(Quantise, RefusesNothingAndHidesNothing) {
  const int64_t k = 240;  // two groups of 120
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -INFINITY}) {
    auto x = RandomFloats(k, 10);
    x[125] = bad;
    for (int64_t i = 0; i < 120; ++i) x[i] *= 0x1p-120f;  // too small to matter
    for (const NamedCpu& named : EveryCpu()) {
      const Rows out = QuantiseOn(named.cpu, WeightFormat::kInt4, x, 1, k);
      EXPECT_EQ(out.rows.scales[0], 0.0f) << named.name;
      EXPECT_TRUE(std::isnan(out.rows.scales[1])) << named.name;
      for (int64_t i = 0; i < k; ++i) EXPECT_EQ(out.rows.values[i], 0);
    }
  }
}

TEST(Quantise, ReadsRowsOfBf16AsTheirValues) {
  const int64_t k = 120, m = 3;
  const auto x = RandomFloats(m * k, 11);
  const auto encoded = Encode(x, DType::kBF16);
  const auto stored = Stored(x, DType::kBF16);
  for (const NamedCpu& named : EveryCpu()) {
    const Rows expected = QuantiseOn(named.cpu, WeightFormat::kInt4, stored, m, k);
    Rows out{AlignedBuffer(expected.memory.size()), {}};
    out.rows = QuantisedRows::In(out.memory.data(), WeightFormat::kInt4, m, k);
    Quantise(
        named.cpu,
        {.x = encoded.data(), .dtype = DType::kBF16, .x_stride = k, .rows = m, .to = out.rows});
    EXPECT_EQ(std::memcmp(out.memory.data(), expected.memory.data(), m * k), 0) << named.name;
  }
}

// Mean squared error over mean square.
double RelativeError(const std::vector<float>& w, const Packed& packed) {
  const int64_t s = packed.matrix.shape.weight_group();
  double error = 0, power = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double value = static_cast<double>(packed.integers.q[i]) * packed.integers.scale[i / s];
    error += (w[i] - value) * (w[i] - value);
    power += static_cast<double>(w[i]) * w[i];
  }
  return error / power;
}

TEST(PackQuantised, IsAsNearAsItsBitsAllow) {
  const int64_t n = 64, k = 2880;
  const auto w = RandomFloats(n * k, 12, 0.02f);
  const Packed eight = Pack({.format = WeightFormat::kInt8, .n = n, .k = k}, w);
  for (size_t i = 0; i < w.size(); ++i) {
    const float scale = eight.integers.scale[i / eight.matrix.shape.weight_group()];
    ASSERT_LE(std::fabs(w[i] - scale * static_cast<float>(eight.integers.q[i])), scale * 0.5001f);
  }
  EXPECT_LT(std::sqrt(RelativeError(w, eight)), 0.0068);
  // What blocks of 32 with the scale largest / -8 reach on such weights: 8.6 %.
  const Packed four = Pack({.format = WeightFormat::kInt4, .n = n, .k = k}, w);
  EXPECT_LT(std::sqrt(RelativeError(w, four)), 0.085);
}

TEST(PackQuantised, KeepsZerosAndWhatIsAlmostZero) {
  for (WeightFormat format : kFormats) {
    std::vector<float> w(16 * 120, 0.0f);
    w[3] = 0x1p-130f;
    const Packed packed = Pack({.format = format, .n = 16, .k = 120}, w);
    for (int q : packed.integers.q) EXPECT_EQ(q, 0);
    for (float scale : packed.integers.scale) EXPECT_EQ(scale, 0.0f);
  }
}

TEST(PackQuantised, StaysFiniteUpToTheLargestWeight) {
  const float largest = std::nextafter(kQuantWeightMax, 0.0f);
  for (WeightFormat format : kFormats) {
    for (const float other : {largest, -largest, 0.0f}) {
      std::vector<float> w(16 * 120, largest);
      for (size_t i = 0; i < w.size(); i += 2) w[i] = other;
      const Packed packed = Pack({.format = format, .n = 16, .k = 120}, w);
      for (size_t i = 0; i < w.size(); ++i) {
        const float scale = packed.integers.scale[i / packed.matrix.shape.weight_group()];
        ASSERT_TRUE(std::isfinite(scale));
        ASSERT_NEAR(static_cast<float>(packed.integers.q[i]) * scale / largest, w[i] / largest,
                    0.15);
      }
    }
  }
}

TEST(QuantisedTable, GivesBackWhatAMatrixWould) {
  for (WeightFormat format : kFormats) {
    for (int64_t k : {120, 56, 2880}) {
      const auto w = RandomFloats(k, 13);
      const Packed packed = Pack({.format = format, .n = 1, .k = k}, w);
      std::vector<std::byte> stored(QuantisedTableRowBytes(format, k));
      EXPECT_EQ(stored.size() % 64, 0u);
      QuantiseTableRow(format, w, stored.data());
      std::vector<float> row(k);
      ReadTableRow(format, stored.data(), absl::MakeSpan(row));
      for (int64_t i = 0; i < k; ++i) {
        EXPECT_EQ(row[i], static_cast<float>(packed.integers.q[i]) *
                              packed.integers.scale[i / WeightGroup(format, k)]);
      }
    }
  }
}

}  // namespace
}  // namespace bottega
