// The operators along a row: rms_norm, rope, swiglu, combine, gather and round.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/kernels/combine.h"
#include "core/kernels/elementary.h"
#include "core/kernels/permute.h"
#include "core/kernels/rms_norm.h"
#include "core/kernels/rope.h"
#include "core/kernels/swiglu.h"
#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

float TreeSum(std::vector<float> lanes) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}

// The contract of rms_norm.h, literally.
void NormRow(const float* x, const float* weight, int64_t width, float eps, float* y) {
  std::vector<float> lanes(16, 0.0f);
  for (int64_t k = 0; k < width; ++k) lanes[k % 16] = std::fma(x[k], x[k], lanes[k % 16]);
  const float mean = TreeSum(lanes) / static_cast<float>(width);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int64_t k = 0; k < width; ++k) y[k] = (x[k] * scale) * weight[k];
}

TEST(RmsNorm, EqualsTheDefinitionOnEveryCpu) {
  for (DType dtype : kEveryDType) {
    for (const int64_t width : {1, 7, 16, 17, 120, 2880}) {
      for (const int64_t groups : {1, 3}) {
        SCOPED_TRACE(testing::Message() << Name(dtype) << " " << groups << "x" << width);
        const int64_t rows = 70, stride = groups * width + 2;
        const auto x = RandomFloats(rows * stride, 1, 3.0f), weight = RandomFloats(width, 2);
        const auto y = OnEveryCpu([&](const Cpu& cpu) {
          std::vector<std::byte> out(rows * stride * SizeOf(dtype));
          RmsNorm(cpu, {.x = x.data(),
                        .x_stride = stride,
                        .rows = rows,
                        .groups = groups,
                        .width = width,
                        .weight = weight.data(),
                        .eps = 1e-6f,
                        .y = out.data(),
                        .y_stride = stride,
                        .y_dtype = dtype});
          return out;
        });
        std::vector<float> expected(rows * stride);
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t g = 0; g < groups; ++g) {
            const int64_t at = row * stride + g * width;
            NormRow(&x[at], weight.data(), width, 1e-6f, &expected[at]);
          }
        }
        EXPECT_EQ(y, Encode(expected, dtype));
      }
    }
  }
}

TEST(RmsNorm, MatchesTheMathsAndWorksInPlace) {
  const int64_t width = 1000;
  auto x = RandomFloats(width, 3, 10.0f);
  const auto weight = RandomFloats(width, 4), original = x;
  RmsNorm(BestCpu(), {.x = x.data(),
                      .rows = 1,
                      .width = width,
                      .weight = weight.data(),
                      .eps = 1e-5f,
                      .y = x.data()});
  double squares = 0;
  for (float v : original) squares += static_cast<double>(v) * v;
  for (int64_t i = 0; i < width; ++i) {
    EXPECT_NEAR(x[i], original[i] * weight[i] / std::sqrt(squares / width + 1e-5), 2e-6);
  }
}

TEST(Rope, EqualsTheDefinitionOnEveryCpu) {
  for (const int64_t head_dim : {2, 8, 40, 48, 128}) {
    const int64_t half = head_dim / 2, heads = 5;
    const float scaling = 1.25f;
    std::vector<float> inv_freq(half);
    for (int64_t i = 0; i < half; ++i) {
      inv_freq[i] = static_cast<float>(std::pow(1e6, -2.0 * i / head_dim));
    }
    std::vector<int32_t> positions = {0, 1, 17, 40959, 1048575};
    for (int i = 0; i < 300; ++i) positions.push_back(i * 131);
    const int64_t rows = static_cast<int64_t>(positions.size()), stride = heads * head_dim + 7;
    std::vector<float> cos(rows * half), sin(rows * half);
    RopeAngles(inv_freq, scaling, positions, cos.data(), sin.data());
    const auto x = RandomFloats(rows * stride, 5);
    const auto y = OnEveryCpu([&](const Cpu& cpu) {
      auto out = x;
      Rope(cpu, {.x = out.data(),
                 .x_stride = stride,
                 .rows = rows,
                 .heads = heads,
                 .head_dim = head_dim,
                 .cos = cos.data(),
                 .sin = sin.data()});
      return out;
    });
    auto expected = x;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < heads * half; ++i) {
        const int64_t a = row * stride + i / half * head_dim + i % half, b = a + half;
        const SinCos turn = SinCosOf(static_cast<float>(positions[row]) * inv_freq[i % half]);
        const float c = turn.cos * scaling, s = turn.sin * scaling;
        expected[a] = std::fma(x[a], c, -(x[b] * s));
        expected[b] = std::fma(x[b], c, x[a] * s);
      }
    }
    EXPECT_TRUE(SameBytes(y, expected)) << head_dim;
  }
}

TEST(SwiGlu, OfPackedGateUpEqualsTheFormula) {
  for (const int64_t width : {1, 8, 16, 24, 56}) {
    const int64_t hidden = 30, rows = 40;
    const auto gate = RandomFloats(width * hidden, 6), up = RandomFloats(width * hidden, 7);
    const auto x = RandomFloats(rows * hidden, 8);
    for (DType dtype : kEveryDType) {
      std::vector<std::byte> packed(GateUpPackedBytes(dtype, width, hidden), std::byte{0xff});
      PackGateUp({gate.data(), DType::kF32, width}, {up.data(), DType::kF32, width}, hidden, dtype,
                 packed.data());
      const int64_t n = GateUpOutputs(width);
      const auto y = OnEveryCpu([&](const Cpu& cpu) {
        std::vector<float> gate_up(rows * n), out(rows * (width + 1), -7.0f);
        MatMul(cpu, {.x = x.data(),
                     .x_stride = hidden,
                     .m = rows,
                     .w = {.data = packed.data(), .dtype = dtype, .n = n, .k = hidden},
                     .y = gate_up.data(),
                     .y_stride = n});
        SwiGlu(cpu, {.gate_up = gate_up.data(),
                     .gate_up_stride = n,
                     .rows = rows,
                     .width = width,
                     .out = out.data(),
                     .out_stride = width + 1});
        return out;
      });
      const auto g = Stored(gate, dtype), u = Stored(up, dtype);
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t c = 0; c < width; ++c) {
          float gate_acc = 0, up_acc = 0;
          for (int64_t i = 0; i < hidden; ++i) {
            gate_acc = std::fma(x[row * hidden + i], g[c * hidden + i], gate_acc);
            up_acc = std::fma(x[row * hidden + i], u[c * hidden + i], up_acc);
          }
          ASSERT_EQ(y[row * (width + 1) + c], Silu(gate_acc) * up_acc);
        }
        ASSERT_EQ(y[row * (width + 1) + width], -7.0f);  // not written past the width
      }
    }
  }
}

TEST(Combine, AddsInExpertOrderThenOnceToTheResidual) {
  for (DType dtype : kEveryDType) {
    for (const int64_t width : {1, 17, 120}) {
      const int64_t tokens = 150, top_k = 8, stride = width + 1;
      const auto rows = RandomFloats(tokens * top_k * width, 9);
      const auto bytes = Encode(rows, dtype);
      const auto stored = Decode(bytes, dtype);
      const auto weights = RandomFloats(tokens * top_k, 10),
                 before = RandomFloats(tokens * stride, 11);
      std::vector<const void*> pointers(tokens * top_k);
      for (int64_t i = 0; i < tokens * top_k; ++i) {
        pointers[i] = bytes.data() + i * width * SizeOf(dtype);
      }
      const auto y = OnEveryCpu([&](const Cpu& cpu) {
        auto out = before;
        Combine(cpu, {.rows = pointers.data(),
                      .weights = weights.data(),
                      .row_dtype = dtype,
                      .tokens = tokens,
                      .top_k = top_k,
                      .width = width,
                      .residual = out.data(),
                      .residual_stride = stride});
        return out;
      });
      auto expected = before;
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t c = 0; c < width; ++c) {
          float acc = 0;
          for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
            acc = std::fma(weights[i], stored[i * width + c], acc);
          }
          expected[t * stride + c] += acc;
        }
      }
      EXPECT_TRUE(SameBytes(y, expected)) << Name(dtype) << " " << width;
    }
  }
}

TEST(Rows, GatherWidensAndRoundRounds) {
  for (DType dtype : kEveryDType) {
    for (const int64_t width : {1, 15, 16, 131}) {
      const int64_t count = 9;
      auto values = RandomFloats(count * width, 12);
      values[0] = 1e-40f;  // a denormal is kept
      const auto bytes = Encode(values, dtype);
      const std::vector<int32_t> index = {8, 0, 3, 3};
      const auto gathered = OnEveryCpu([&](const Cpu& cpu) {
        std::vector<float> out(index.size() * width);
        GatherRows(cpu, {.src = bytes.data(),
                         .dtype = dtype,
                         .src_stride = width,
                         .index = index,
                         .width = width,
                         .dst = out.data(),
                         .dst_stride = width});
        return out;
      });
      const auto stored = Decode(bytes, dtype);
      for (size_t i = 0; i < index.size(); ++i) {
        for (int64_t c = 0; c < width; ++c) {
          ASSERT_EQ(gathered[i * width + c], stored[index[i] * width + c]);
        }
      }
      const auto rounded = OnEveryCpu([&](const Cpu& cpu) {
        std::vector<std::byte> out(count * width * SizeOf(dtype));
        std::vector<std::byte*> rows;
        for (int64_t row = 0; row < count; ++row)
          rows.push_back(out.data() + row * width * SizeOf(dtype));
        RoundRows(cpu, {.src = values.data(),
                        .src_stride = width,
                        .width = width,
                        .dst_rows = rows,
                        .dtype = dtype});
        return out;
      });
      EXPECT_EQ(rounded, bytes);
    }
  }
}

TEST(GroupByExpert, IsAStableCountingSort) {
  const std::vector<uint16_t> experts = {3, 0, 3, 1, 0, 3};
  std::vector<int32_t> offsets(6), order(experts.size());
  GroupByExpert(experts, absl::MakeSpan(offsets), absl::MakeSpan(order));
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 2, 3, 3, 6, 6}));
  EXPECT_EQ(order, (std::vector<int32_t>{1, 4, 3, 0, 2, 5}));
}

}  // namespace
}  // namespace bottega
