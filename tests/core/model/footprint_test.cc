#include "core/model/footprint.h"

#include "core/model/added_tokens.h"
#include "core/model/packer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

using nlohmann::json;

json Published() {
  json config = SmallConfig();
  config.update({{"hidden_size", 2880},
                 {"num_hidden_layers", 24},
                 {"num_attention_heads", 32},
                 {"num_key_value_heads", 4},
                 {"head_dim", 128},
                 {"num_experts", 64},
                 {"num_experts_per_tok", 8},
                 {"moe_intermediate_size", 1080},
                 {"vocab_size", 131084}});
  return config;
}

TEST(Footprint, ThePublishedModel) {
  auto config = ParseModelConfig(Published().dump(), "");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(KvBytesPerToken(*config, DType::kBF16), 49152u);
  EXPECT_EQ(KvBytesPerToken(*config, DType::kF32), 98304u);
  // 31.46 GB of weights; gate and up rows padded to 1088, router and norms in f32.
  const auto gigabytes = [&](WeightFormat format) {
    return static_cast<double>(*PackedBytesOf(*config, format)) / 1e9;
  };
  EXPECT_NEAR(gigabytes(WeightFormat::kBF16) / 31.46, 1.0, 0.01);
  EXPECT_NEAR(gigabytes(WeightFormat::kF32) / gigabytes(WeightFormat::kBF16), 2.0, 0.01);
  // 15.73 and 7.86 GB without scales. A block of scales is 128 bytes beside 3,456 of int8 weights
  // (2.2 %), 320 beside 2,880 of int4 (11 %).
  EXPECT_NEAR(gigabytes(WeightFormat::kInt8) / (15.73 * 1.038), 1.0, 0.005);
  EXPECT_NEAR(gigabytes(WeightFormat::kInt4) / (7.865 * 1.111), 1.0, 0.005);
}

TEST(Footprint, IsWhatThePackerWrites) {
  for (WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    WriteCheckpoint(dir / "hf");
    PackOptions options;
    options.weights = weights;
    ASSERT_TRUE(PackModel(dir / "hf", dir / "out", options).ok());
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir / "out")) {
      if (entry.path().extension() == ".weights") bytes += entry.file_size();
    }
    auto config = ParseModelConfig(SmallConfig().dump(), "");
    EXPECT_EQ(PackedBytesOf(*config, weights), bytes);
  }
}

TEST(Footprint, QuantisedNeedsWidthsOfEight) {
  json config = SmallConfig();
  config["moe_intermediate_size"] = 25;
  auto parsed = ParseModelConfig(config.dump(), "");
  ASSERT_TRUE(parsed.ok());
  EXPECT_FALSE(PackedBytesOf(*parsed, WeightFormat::kInt8).has_value());
  EXPECT_FALSE(PackedBytesOf(*parsed, WeightFormat::kInt4).has_value());
  EXPECT_TRUE(PackedBytesOf(*parsed, WeightFormat::kBF16).has_value());
}

TEST(AddedTokens, InFileOrder) {
  auto tokens = ReadAddedTokens(R"({"version": "1.0", "truncation": null, "added_tokens": [
      {"id": 5, "content": "<think>", "special": false, "lstrip": false},
      {"id": 2, "content": "</s>", "special": true, "nested": {"id": 9, "content": "no"}}],
      "model": {"added_tokens": [{"id": 1, "content": "no"}], "vocab": {"a": 0}}})");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[0].text, "<think>");
  EXPECT_EQ((*tokens)[0].id, 5);
  EXPECT_FALSE((*tokens)[0].special);
  EXPECT_EQ((*tokens)[1].text, "</s>");
  EXPECT_EQ((*tokens)[1].id, 2);
  EXPECT_TRUE((*tokens)[1].special);
}

TEST(AddedTokens, NoneAndBroken) {
  EXPECT_TRUE(ReadAddedTokens("{}")->empty());
  EXPECT_TRUE(ReadAddedTokens(R"({"model": {"added_tokens": [{"id": 1}]}})")->empty());
  EXPECT_FALSE(ReadAddedTokens("").ok());
  EXPECT_FALSE(ReadAddedTokens("{\"added_tokens\": [").ok());
  EXPECT_FALSE(ReadAddedTokens(std::string(100'000, '[')).ok());
}

}  // namespace
}  // namespace bottega
