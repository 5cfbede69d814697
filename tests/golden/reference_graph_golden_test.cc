// Our slow graph against transformers in float32 (tests/golden/README.md): logits of every position
// and the experts chosen. A position's error is |ours - theirs| / |theirs|, Euclidean over the
// vocabulary.

#include <algorithm>
#include <cstdio>
#include <string>

#include "core/model/checkpoint_reader.h"
#include "core/model/reference_graph.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/golden/logits_golden.h"

namespace bottega {
namespace {

class ReferenceGraphGolden : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceGraphGolden, EveryPositionAsTransformers) {
  const LogitsGolden golden = LoadLogitsGolden(GetParam());
  auto checkpoint = Checkpoint::Open(golden.model);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  double worst = 0;
  size_t positions = 0;
  for (const GoldenSequence& sequence : golden.sequences) {
    auto out = RunReferenceGraph(**checkpoint, sequence.ids);
    ASSERT_TRUE(out.ok()) << out.status();
    EXPECT_EQ(out->choices, sequence.experts);
    for (size_t t = 0; t < sequence.ids.size(); ++t, ++positions) {
      const float* theirs = &golden.logits[(sequence.first_row + t) * golden.vocab];
      worst = std::max(worst, RelativeError(&out->logits[t * golden.vocab], theirs, golden.vocab));
    }
  }
  EXPECT_EQ(positions * golden.vocab, golden.logits.size());
  EXPECT_LE(worst, 1e-4);
  RecordProperty("worst_relative_error", std::to_string(worst));
  std::printf("%s: %zu positions, worst relative error %.2e\n", GetParam().c_str(), positions,
              worst);
}

// Every model that tests/golden/logits has an answer for.
std::vector<std::string> Models() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/logits", error)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceGraphGolden, testing::ValuesIn(Models()),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ReferenceGraphGoldenFiles, TheRandomModelsAreThere) {
  EXPECT_THAT(Models(), testing::IsSupersetOf({"random-qwen3moe", "random-yarn"}));
}

}  // namespace
}  // namespace bottega
