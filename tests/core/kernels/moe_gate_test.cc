#include "core/kernels/moe_gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

struct Gated {
  std::vector<uint16_t> ids;
  std::vector<float> weights;
  std::vector<uint8_t> bad;
  int64_t bad_rows;
};

Gated Gate(const Cpu& cpu, const std::vector<float>& logits, int64_t experts, int64_t top_k,
           bool renormalise) {
  const int64_t tokens = static_cast<int64_t>(logits.size()) / experts;
  Gated out{std::vector<uint16_t>(tokens * top_k), std::vector<float>(tokens * top_k),
            std::vector<uint8_t>(tokens), 0};
  out.bad_rows = MoeGate(cpu, {.logits = logits.data(),
                               .tokens = tokens,
                               .experts = experts,
                               .top_k = top_k,
                               .renormalise = renormalise,
                               .ids = out.ids.data(),
                               .weights = out.weights.data(),
                               .bad = out.bad.data()});
  return out;
}

TEST(MoeGate, ChoosesAndWeighsAsSoftmaxDoes) {
  for (const auto& [experts, top_k] :
       {std::pair<int64_t, int64_t>{64, 8}, {128, 8}, {5, 5}, {40, 17}}) {
    for (bool renormalise : {true, false}) {
      // Coarse values make ties.
      auto logits = RandomFloats(30 * experts, 1, 2.0f);
      for (float& x : logits) x = std::round(x * 4) / 4;
      const Gated scalar = Gate(ScalarCpu(), logits, experts, top_k, renormalise);
      for (const NamedCpu& named : EveryCpu()) {
        const Gated other = Gate(named.cpu, logits, experts, top_k, renormalise);
        EXPECT_EQ(other.ids, scalar.ids) << named.name;
        EXPECT_TRUE(SameBytes(other.weights, scalar.weights)) << named.name;
      }
      EXPECT_EQ(scalar.bad_rows, 0);
      for (int64_t t = 0; t < 30; ++t) {
        const float* row = &logits[t * experts];
        std::vector<uint16_t> ids(experts);
        std::iota(ids.begin(), ids.end(), 0);
        std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return row[a] > row[b]; });
        double sum = 0;
        for (int64_t i = 0; i < (renormalise ? top_k : experts); ++i)
          sum += std::exp(double{row[ids[i]]});
        ids.resize(top_k);
        std::sort(ids.begin(), ids.end());
        for (int64_t i = 0; i < top_k; ++i) {
          ASSERT_EQ(scalar.ids[t * top_k + i], ids[i]);
          ASSERT_NEAR(scalar.weights[t * top_k + i], std::exp(double{row[ids[i]]}) / sum, 3e-7);
        }
      }
    }
  }
}

TEST(MoeGate, TiesGoToTheLowerId) {
  const Gated out = Gate(BestCpu(), std::vector<float>(16, 0.5f), 16, 3, true);
  EXPECT_EQ(out.ids, (std::vector<uint16_t>{0, 1, 2}));
}

TEST(MoeGate, ABadRowIsFlaggedAndLeavesTheOthersAlone) {
  for (float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    auto logits = RandomFloats(3 * 20, 2);
    const Gated clean = Gate(BestCpu(), logits, 20, 4, true);
    logits[20 + 7] = poison;
    const Gated out = Gate(BestCpu(), logits, 20, 4, true);
    EXPECT_EQ(out.bad_rows, 1);
    EXPECT_EQ(out.bad, (std::vector<uint8_t>{0, 1, 0}));
    for (int i : {0, 1, 2, 3, 8, 9, 10, 11}) EXPECT_EQ(out.weights[i], clean.weights[i]);
    for (int i : {4, 5, 6, 7}) EXPECT_EQ(out.weights[i], 0.0f);
  }
}

}  // namespace
}  // namespace bottega
