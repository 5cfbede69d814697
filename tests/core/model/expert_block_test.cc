#include "core/model/expert_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "core/kernels/cpu/threads.h"
#include "core/kernels/elementary.h"
#include "core/kernels/swiglu.h"
#include "core/tensor/aligned_buffer.h"
#include "core/tensor/bf16.h"

namespace bottega {
namespace {

constexpr int64_t kHidden = 40, kWidth = 24;  // a multiple of 8, not of 16

struct Weights {
  std::vector<float> gate, up, down;  // [width, hidden], [width, hidden], [hidden, width]
  AlignedBuffer gate_up_packed, down_packed;
  GatedMlpWeights mlp() const {
    constexpr auto kFormat = WeightFormat::kF32;
    return {.width = kWidth,
            .gate_up = {gate_up_packed.data(), kFormat, GateUpOutputs(kWidth), kHidden},
            .down = {down_packed.data(), kFormat, kHidden, kWidth}};
  }
};

Weights MakeWeights(std::mt19937& rng) {
  std::normal_distribution<float> normal(0, 0.3f);
  Weights w;
  auto fill = [&](std::vector<float>& v, size_t n) {
    v.resize(n);
    for (float& x : v) x = normal(rng);
  };
  fill(w.gate, kWidth * kHidden);
  fill(w.up, kWidth * kHidden);
  fill(w.down, kHidden * kWidth);
  w.gate_up_packed = AlignedBuffer(GateUpPackedBytes(DType::kF32, kWidth, kHidden));
  PackGateUp({w.gate.data(), DType::kF32, kWidth}, {w.up.data(), DType::kF32, kWidth}, kHidden,
             DType::kF32, w.gate_up_packed.data());
  w.down_packed = AlignedBuffer(PackedBytes(DType::kF32, kHidden, kWidth));
  const RowBlock down[] = {{w.down.data(), DType::kF32, kHidden}};
  PackTiles(down, kWidth, DType::kF32, w.down_packed.data());
  return w;
}

float Dot(const float* x, const float* w, int64_t k) {
  float acc = 0;
  for (int64_t i = 0; i < k; ++i) acc = std::fma(x[i], w[i], acc);
  return acc;
}

// The numerics contract, said slowly.
std::vector<float> Reference(const Weights& w, const std::vector<float>& x) {
  std::vector<float> act(kWidth), y(kHidden);
  for (int64_t n = 0; n < kWidth; ++n) {
    const float gate = Dot(x.data(), &w.gate[n * kHidden], kHidden);
    act[n] = Silu(gate) * Dot(x.data(), &w.up[n * kHidden], kHidden);
  }
  for (int64_t n = 0; n < kHidden; ++n) y[n] = Dot(act.data(), &w.down[n * kWidth], kWidth);
  return y;
}

class ExpertBlockTest : public testing::TestWithParam<DType> {
 protected:
  size_t row_bytes() const { return kHidden * SizeOf(GetParam()); }
  std::vector<float> Widened(const std::byte* row) const {
    std::vector<float> x(kHidden);
    for (int64_t i = 0; i < kHidden; ++i) {
      if (GetParam() == DType::kF32) {
        std::memcpy(&x[i], row + i * 4, 4);
      } else {
        BF16 value;
        std::memcpy(&value, row + i * 2, 2);
        x[i] = Widen(value);
      }
    }
    return x;
  }
  std::vector<std::byte> Rounded(const std::vector<float>& x) const {
    std::vector<std::byte> row(row_bytes());
    for (int64_t i = 0; i < kHidden; ++i) {
      if (GetParam() == DType::kF32) {
        std::memcpy(&row[i * 4], &x[i], 4);
      } else {
        const BF16 value = RoundToBF16(x[i]);
        std::memcpy(&row[i * 2], &value, 2);
      }
    }
    return row;
  }
};
INSTANTIATE_TEST_SUITE_P(RowTypes, ExpertBlockTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });

// Rows of several experts, however many, in whatever turns and threads, give the reference's bytes.
TEST_P(ExpertBlockTest, EveryMixGivesTheReferencesBytes) {
  std::mt19937 rng(3);
  std::vector<Weights> experts;
  for (int e = 0; e < 3; ++e) experts.push_back(MakeWeights(rng));
  std::normal_distribution<float> normal(0, 1);

  for (int threads : {1, 2}) {
    ThreadPool pool(threads);
    const Cpu cpu = MakeCpu(BestIsa(), &pool);
    for (int64_t rows_max : {1, 5, 64}) {
      ExpertBlock block(cpu,
                        {.hidden = kHidden,
                         .width = kWidth,
                         .row_type = GetParam(),
                         .weights = WeightFormat::kF32},
                        rows_max);
      const size_t counts[] = {4, 0, 9};
      std::vector<std::vector<std::byte>> in, out;
      for (size_t n = 0; n < 13; ++n) {
        std::vector<float> x(kHidden);
        for (float& v : x) v = normal(rng);
        in.push_back(Rounded(x));
        out.emplace_back(row_bytes());
      }
      std::vector<const std::byte*> in_rows;
      std::vector<std::byte*> out_rows;
      for (size_t n = 0; n < 13; ++n) {
        in_rows.push_back(in[n].data());
        out_rows.push_back(out[n].data());
      }
      std::vector<ExpertGroup> groups;
      size_t first = 0;
      for (size_t e = 0; e < 3; ++e) {
        groups.push_back({experts[e].mlp(), absl::MakeConstSpan(in_rows).subspan(first, counts[e]),
                          absl::MakeSpan(out_rows).subspan(first, counts[e])});
        first += counts[e];
      }
      block.Run(groups);
      for (size_t n = 0; n < 13; ++n) {
        const Weights& w = experts[n < 4 ? 0 : 2];
        EXPECT_EQ(out[n], Rounded(Reference(w, Widened(in[n].data()))))
            << "row " << n << ", " << threads << " threads, turns of " << rows_max;
      }
    }
  }
}

}  // namespace
}  // namespace bottega
