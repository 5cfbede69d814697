// Our slow graph against transformers in float32 (tests/golden/README.md): logits of every position
// and the experts chosen. A position's error is |ours - theirs| / |theirs|, Euclidean over the
// vocabulary.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <vector>

#include "core/model/checkpoint_reader.h"
#include "core/model/reference_graph.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using nlohmann::json;

struct Golden {
  json about;
  std::vector<float> logits;  // [rows, vocab]
};

Golden Load(const std::string& name) {
  const std::string base = "tests/golden/logits/" + name;
  Golden golden;
  golden.about = json::parse(std::ifstream(base + ".json"));
  golden.logits.resize(golden.about["rows"].get<size_t>() * golden.about["vocab"].get<size_t>());
  std::ifstream data(base + ".bin", std::ios::binary);
  data.read(reinterpret_cast<char*>(golden.logits.data()),
            static_cast<std::streamsize>(golden.logits.size() * sizeof(float)));
  EXPECT_TRUE(data.good());
  return golden;
}

double RelativeError(const float* ours, const float* theirs, size_t count) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < count; ++i) {
    difference += std::pow(static_cast<double>(ours[i]) - theirs[i], 2);
    norm += std::pow(static_cast<double>(theirs[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class ReferenceGraphGolden : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceGraphGolden, EveryPositionAsTransformers) {
  Golden golden = Load(GetParam());
  auto checkpoint = Checkpoint::Open(golden.about["model"].get<std::string>());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const size_t vocab = golden.about["vocab"];
  double worst = 0;
  size_t positions = 0;
  for (const json& sequence : golden.about["sequences"]) {
    const auto ids = sequence["ids"].get<std::vector<int32_t>>();
    auto out = RunReferenceGraph(**checkpoint, ids);
    ASSERT_TRUE(out.ok()) << out.status();
    for (size_t layer = 0; layer < out->choices.size(); ++layer) {
      if (sequence["experts"][layer].is_null()) {
        EXPECT_TRUE(out->choices[layer].empty());
      } else {
        EXPECT_EQ(out->choices[layer],
                  sequence["experts"][layer].get<std::vector<std::vector<int>>>());
      }
    }
    const size_t first_row = sequence["first_row"];
    for (size_t t = 0; t < ids.size(); ++t, ++positions) {
      worst = std::max(worst, RelativeError(&out->logits[t * vocab],
                                            &golden.logits[(first_row + t) * vocab], vocab));
    }
  }
  EXPECT_EQ(positions, golden.about["rows"].get<size_t>());
  EXPECT_LE(worst, 1e-4);
  RecordProperty("worst_relative_error", std::to_string(worst));
  std::printf("%s: %zu positions, worst relative error %.2e\n", GetParam(), positions, worst);
}

INSTANTIATE_TEST_SUITE_P(Models, ReferenceGraphGolden,
                         testing::Values("random-qwen3moe", "random-yarn"), [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace bottega
