// What bench/accuracy compares with: llama.cpp's blocks as published, and outliers that change
// nothing but what a format has to store.

#include <cmath>
#include <numeric>

#include "bench/accuracy/block_format.h"
#include "bench/accuracy/changed_checkpoint.h"
#include "core/kernels/quantised.h"
#include "core/model/reference_graph.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

using Rule = BlockFormat::Rule;
const BlockFormat kQ8 = {"Q8_0", Rule::kQ8_0}, kQ4 = {"Q4_0", Rule::kQ4_0};

TEST(BlockFormat, RoundsToTheNearestF16) {
  EXPECT_EQ(RoundToF16(1.0f + 0x1p-11f), 1.0f);  // a tie goes to even
  EXPECT_EQ(RoundToF16(1.0f + 0x1.8p-11f), 1.0f + 0x1p-10f);
  EXPECT_EQ(RoundToF16(-3.14159f), -3.140625f);
  EXPECT_EQ(RoundToF16(0x1.8p-24f), 0x1p-23f);  // subnormals are whole multiples of 2^-24
  EXPECT_EQ(RoundToF16(0x1p-26f), 0.0f);
  EXPECT_EQ(RoundToF16(0.0f), 0.0f);
}

// Scale 1/16, a power of two: the integers can be seen.
TEST(BlockFormat, Q8IsTheNearestMultipleOfTheLargest127th) {
  std::vector<float> row(33);
  row[0] = 127.0f / 16, row[1] = 0.49f / 16, row[2] = 0.51f / 16, row[3] = -2.5f / 16;
  row[32] = 5;  // a block of its own
  kQ8.RoundWeights(row);
  EXPECT_THAT(std::vector(row.begin(), row.begin() + 5),
              testing::ElementsAre(127.0f / 16, 0, 1.0f / 16, -3.0f / 16, 0));
  EXPECT_NEAR(row[32], 5, 5 * 0x1p-11);  // the scale in f16 is all that is lost
}

// The largest magnitude becomes -8 scales, whatever its sign; the other end stops at 7.
TEST(BlockFormat, Q4PutsTheExtremeOnMinusEight) {
  std::vector<float> row(32);
  row[0] = 4, row[1] = -4, row[2] = 0.2f, row[3] = 0.3f;
  kQ4.RoundWeights(row);
  EXPECT_THAT(std::vector(row.begin(), row.begin() + 5), testing::ElementsAre(4, -3.5, 0, 0.5, 0));
}

TEST(BlockFormat, OursIsWhatTheEngineStores) {
  std::vector<float> row(1080);
  for (size_t i = 0; i < row.size(); ++i) row[i] = std::sin(static_cast<float>(i * i));
  for (const auto& [rule, stored] :
       {std::pair(Rule::kInt8, WeightFormat::kInt8), std::pair(Rule::kInt4, WeightFormat::kInt4)}) {
    const int64_t weights_most = rule == Rule::kInt8 ? 72 : 40;
    std::vector<float> ours = row, engine(row.size());
    std::vector<std::byte> bytes(QuantisedTableRowBytes(stored, 1080));
    BlockFormat{"", rule, weights_most, 128}.RoundWeights(ours);
    QuantiseTableRow(stored, row, bytes.data());
    ReadTableRow(stored, bytes.data(), absl::MakeSpan(engine));
    EXPECT_EQ(ours, engine);
  }
}

TEST(BlockFormat, BytesCountScalesAndPadding) {
  EXPECT_DOUBLE_EQ(kQ8.BytesPerWeight(2880), 34.0 / 32);
  EXPECT_DOUBLE_EQ(kQ4.BytesPerWeight(1080), 34 * 18.0 / 1080);
  EXPECT_DOUBLE_EQ((BlockFormat{"", Rule::kInt8, 72, 72}.BytesPerWeight(2880)), 74.0 / 72);
  EXPECT_DOUBLE_EQ((BlockFormat{"", Rule::kInt4, 40, 128}.BytesPerWeight(1080)), 22.0 / 40);
}

TEST(Outliers, KeepTheLogitsAndAreThere) {
  auto checkpoint = Checkpoint::Open("tests/fixtures/bottega-tiny");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TempDir dir;
  ASSERT_TRUE(WriteChanged(**checkpoint, dir.path(), AddOutliers(1)).ok());
  auto changed = Checkpoint::Open(dir.path());
  ASSERT_TRUE(changed.ok()) << changed.status();

  const std::string norm = tensor_name::OfLayer(2, "post_attention_layernorm");
  const auto before = *(*checkpoint)->ReadFloats(norm), after = *(*changed)->ReadFloats(norm);
  int larger = 0;
  for (size_t i = 0; i < before.size(); ++i) larger += after[i] == 16 * before[i];
  EXPECT_EQ(larger, kOutliers);

  std::vector<int32_t> ids(24);
  std::iota(ids.begin(), ids.end(), 300);
  const auto plain = RunReferenceGraph(**checkpoint, ids);
  const auto with_outliers = RunReferenceGraph(**changed, ids);
  ASSERT_TRUE(plain.ok() && with_outliers.ok());
  EXPECT_THAT(with_outliers->logits, testing::Pointwise(testing::FloatNear(1e-4f), plain->logits));
}

}  // namespace
}  // namespace bottega
