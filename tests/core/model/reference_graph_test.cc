#include "core/model/reference_graph.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

const std::vector<int32_t> kIds = {5, 36, 0, 7, 7, 21};

class ReferenceGraph : public testing::Test {
 protected:
  ReferenceGraph() {
    nlohmann::json config = SmallConfig();
    config["num_hidden_layers"] = 3;
    config["mlp_only_layers"] = {1};
    config["intermediate_size"] = 56;
    WriteCheckpoint(dir_.path(), {.config = config, .dtype = DType::kF32});
    checkpoint_ = *Checkpoint::Open(dir_.path());
  }
  ReferenceOutput Run(const std::vector<int32_t>& ids, const ReferenceOptions& options = {}) {
    return *RunReferenceGraph(*checkpoint_, ids, options);
  }
  TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

// A position sees itself and what is before it, nothing else.
TEST_F(ReferenceGraph, APrefixGivesThePrefixOfTheLogits) {
  ReferenceOutput whole = Run(kIds);
  ASSERT_EQ(whole.logits.size(), kIds.size() * 37);
  for (size_t count = 1; count < kIds.size(); ++count) {
    ReferenceOutput part = Run({kIds.begin(), kIds.begin() + static_cast<std::ptrdiff_t>(count)});
    EXPECT_TRUE(std::equal(part.logits.begin(), part.logits.end(), whole.logits.begin())) << count;
  }
}

// All that meets a packed matrix is rounded, here to nothing; what the router reads is not.
TEST_F(ReferenceGraph, InputsAreRoundedButTheRouters) {
  const ReferenceOutput plain = Run(kIds);
  const ReferenceOutput same = Run(kIds, {.round_inputs = [](std::span<float>) {}});
  EXPECT_EQ(same.logits, plain.logits);
  std::set<size_t> widths;
  const ReferenceOutput nothing = Run(kIds, {.round_inputs = [&](std::span<float> row) {
                                        widths.insert(row.size());
                                        std::fill(row.begin(), row.end(), 0.0f);
                                      }});
  EXPECT_EQ(nothing.logits, std::vector<float>(plain.logits.size()));
  EXPECT_EQ(widths, (std::set<size_t>{24, 40, 56, 96}));  // expert, hidden, dense, heads
  std::set<std::vector<int>> chosen(nothing.choices[0].begin(), nothing.choices[0].end());
  EXPECT_GT(chosen.size(), 1u);
}

TEST_F(ReferenceGraph, ForcedChoicesAreUsed) {
  ReferenceOutput free = Run(kIds);
  ASSERT_EQ(free.choices.size(), 3u);
  EXPECT_TRUE(free.choices[1].empty());
  EXPECT_EQ(free.choices[0][0].size(), 2u);
  EXPECT_EQ(Run(kIds, {.forced = &free.choices}).logits, free.logits);

  ExpertChoices others = free.choices;
  int& expert = others[2][3][0];  // layer 2, position 3
  do {
    expert = (expert + 1) % 6;
  } while (expert == free.choices[2][3][0] || expert == free.choices[2][3][1]);
  ReferenceOutput forced = Run(kIds, {.forced = &others});
  EXPECT_EQ(forced.choices, others);
  for (size_t t = 0; t < kIds.size(); ++t) {
    // The last layer's change at position 3 is seen at position 3 only.
    bool same = std::equal(forced.logits.begin() + static_cast<std::ptrdiff_t>(t * 37),
                           forced.logits.begin() + static_cast<std::ptrdiff_t>((t + 1) * 37),
                           free.logits.begin() + static_cast<std::ptrdiff_t>(t * 37));
    EXPECT_EQ(same, t != 3) << t;
  }
}

TEST_F(ReferenceGraph, DoubleSumsAreCloseToFloatSums) {
  ReferenceOutput f32 = Run(kIds);
  ReferenceOutput f64 = Run(kIds, {.accumulate_in_double = true});
  ASSERT_EQ(f32.choices, f64.choices);
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < f32.logits.size(); ++i) {
    difference += std::pow(f32.logits[i] - f64.logits[i], 2);
    norm += std::pow(f64.logits[i], 2);
  }
  EXPECT_GT(difference, 0.0);
  EXPECT_LT(std::sqrt(difference / norm), 1e-5);
}

TEST_F(ReferenceGraph, RefusesIdsPastTheVocabulary) {
  for (int32_t id : {-1, 37}) {
    EXPECT_FALSE(RunReferenceGraph(*checkpoint_, std::vector<int32_t>{1, id}).ok());
  }
}

}  // namespace
}  // namespace bottega
