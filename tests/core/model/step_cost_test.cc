// The floors of EngGPT2-16B-A3B, worked out by hand from its config.

#include "core/model/step_cost.h"

#include "core/model/synthetic_shape.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bottega {
namespace {

ModelConfig EngGpt2() { return *ParseModelConfig(*SyntheticShape("enggpt2", std::nullopt), ""); }

StepCosts Costs(WeightFormat weights) { return StepCosts(EngGpt2(), weights, DType::kBF16); }

// Weights that a token meets: q, k, v and o of 24 layers, 8 experts of each, the head, the router.
constexpr double kAttention = 24.0 * 2880 * (4096 + 2 * 512 + 4096);
constexpr double kExperts = 24.0 * 8 * 3 * 2880 * 1080;
constexpr double kHead = 131084.0 * 2880;
constexpr double kRouter = 24.0 * 64 * 2880;

TEST(StepCost, TokensOfABatchShareExperts) {
  const StepCosts costs = Costs(WeightFormat::kInt8);
  const std::pair<int, double> expected[] = {{1, 8}, {2, 15}, {4, 26}, {8, 42}, {16, 56}, {32, 63}};
  for (const auto& [tokens, experts] : expected) {
    EXPECT_NEAR(costs.DistinctExperts(tokens), experts, 0.6) << tokens;
  }
  EXPECT_DOUBLE_EQ(costs.DistinctExperts(2), 64 * (1 - 49.0 / 64));
}

TEST(StepCost, ATokenTakesTwoOperationsAWeight) {
  const double weights = kAttention + kExperts + kHead;
  EXPECT_NEAR(weights, 2.81e9, 0.01e9);
  const StepCost plain = Costs(WeightFormat::kBF16).Decode(1, 0);
  EXPECT_DOUBLE_EQ(plain.f32_ops, 2 * (weights + kRouter));
  EXPECT_DOUBLE_EQ(plain.int8_ops, 0);
  const StepCost quantised = Costs(WeightFormat::kInt8).Decode(3, 0);
  EXPECT_DOUBLE_EQ(quantised.int8_ops, 3 * 2 * weights);
  EXPECT_DOUBLE_EQ(quantised.f32_ops, 3 * 2 * kRouter);
}

TEST(StepCost, BytesAreThePackedOnes) {
  // Gate and up rows are padded to 1088, the head's to 131088; router f32; four norms a layer.
  const double expert = 2 * (2 * 1088.0 * 2880 + 2880.0 * 1080);
  const double norms = 4 * (24.0 * (2 * 2880 + 2 * 128) + 2880);
  const double shared = 2 * (kAttention + 131088.0 * 2880) + 4 * kRouter + norms;
  const StepCosts plain = Costs(WeightFormat::kBF16);
  EXPECT_NEAR(plain.Decode(1, 0).weight_bytes, shared + 24 * 8 * expert, 1e5);  // gaps to 64 bytes
  EXPECT_NEAR(plain.Decode(1, 0).weight_bytes, 5.65e9, 0.03e9);
  EXPECT_NEAR(plain.Decode(8, 0).weight_bytes - plain.Decode(1, 0).weight_bytes,
              24 * (plain.DistinctExperts(8) - 8) * expert, 1e6);
  EXPECT_NEAR(plain.Decode(8, 0, 10).weight_bytes, shared + 24 * 10 * expert, 1e6);
  // 2.81 GB and 128 bytes of scales beside 3,456 (3,072 where K is 4096), f32 routers; half, and
  // 320 beside 2,880.
  EXPECT_NEAR(Costs(WeightFormat::kInt8).Decode(1, 0).weight_bytes, 2.81e9 * 1.0375 + 17.7e6,
              0.01e9);
  EXPECT_NEAR(Costs(WeightFormat::kInt4).Decode(1, 0).weight_bytes, 1.405e9 * 1.111, 0.03e9);
}

TEST(StepCost, ContextIsReadAndMultiplied) {
  const StepCosts costs = Costs(WeightFormat::kInt8);
  const StepCost none = costs.Decode(4, 0), deep = costs.Decode(4, 1000);
  EXPECT_DOUBLE_EQ(deep.weight_bytes, none.weight_bytes);
  EXPECT_DOUBLE_EQ(deep.kv_bytes, 4 * 1000 * 49152.0);
  EXPECT_DOUBLE_EQ(deep.f32_ops - none.f32_ops, 4 * 1000 * 24 * 4 * 4096.0);
  EXPECT_DOUBLE_EQ(deep.int8_ops, none.int8_ops);
}

TEST(StepCost, APromptSamplesOnce) {
  const StepCost prompt = Costs(WeightFormat::kInt4).Prefill(512);
  EXPECT_DOUBLE_EQ(prompt.int8_ops, 2 * (512 * (kAttention + kExperts) + kHead));
  EXPECT_DOUBLE_EQ(prompt.f32_ops, 2 * 512 * kRouter + 512.0 * 513 / 2 * 24 * 4 * 4096);
  EXPECT_DOUBLE_EQ(prompt.kv_bytes, 0);
}

TEST(StepCost, FloorIsTheLongerOfReadingAndComputing) {
  const MachineRates rates = {
      .read_bytes_per_s = 33e9, .f32_ops_per_s = 345e9, .int8_ops_per_s = 1480e9};
  const StepCosts costs = Costs(WeightFormat::kInt8);
  // 2.93 GB; 1.08 GB and 56.4 of 64 experts' 14.86 GB; 2,488 GOP of int8 and 56 GFLOP.
  EXPECT_NEAR(1 / FloorSeconds(costs.Decode(1, 16), rates), 11.26, 0.05);
  EXPECT_NEAR(16 / FloorSeconds(costs.Decode(16, 16), rates), 37.2, 0.1);
  EXPECT_NEAR(512 / FloorSeconds(costs.Prefill(512), rates), 277.7, 0.5);
  const StepCost work = {.weight_bytes = 3, .kv_bytes = 1, .f32_ops = 6, .int8_ops = 10};
  EXPECT_DOUBLE_EQ(FloorSeconds(work, {2, 3, 5}), 4);  // 6 / 3 + 10 / 5 is longer than 4 / 2
  EXPECT_DOUBLE_EQ(FloorSeconds(work, {0.5, 3, 5}), 8);
  EXPECT_DOUBLE_EQ(FloorSeconds(work, {4, 3, 0}), 2);  // an unknown rate limits nothing
}

TEST(StepCost, DenseLayersAreReadByEveryStep) {
  ModelConfig config = EngGpt2();
  config.is_moe_layer[0] = 0;
  config.dense_width = 5760;
  const StepCosts costs(config, WeightFormat::kInt8, DType::kF32);
  const double moe = 24 * 8 * 3 * 2880.0 * 1080;
  EXPECT_DOUBLE_EQ(costs.Decode(1, 0).int8_ops,
                   2 * (kAttention + kHead + moe * 23 / 24 + 3 * 2880.0 * 5760));
  EXPECT_DOUBLE_EQ(costs.Decode(1, 1).kv_bytes, 2 * 49152.0);
}

}  // namespace
}  // namespace bottega
