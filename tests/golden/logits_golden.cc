#include "tests/golden/logits_golden.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace bottega {

bool HasLogitsGolden(const std::string& name) {
  return std::filesystem::exists("tests/golden/logits/" + name + ".json");
}

LogitsGolden LoadLogitsGolden(const std::string& name) {
  const std::string base = "tests/golden/logits/" + name;
  const auto about = nlohmann::json::parse(std::ifstream(base + ".json"));
  LogitsGolden golden;
  golden.model = about["model"];
  golden.vocab = about["vocab"];
  golden.logits.resize(about["rows"].get<size_t>() * golden.vocab);
  std::ifstream data(base + ".bin", std::ios::binary);
  data.read(reinterpret_cast<char*>(golden.logits.data()),
            static_cast<std::streamsize>(golden.logits.size() * sizeof(float)));
  EXPECT_TRUE(data.good()) << base;
  for (const auto& from : about["sequences"]) {
    GoldenSequence sequence;
    sequence.ids = from["ids"].get<std::vector<int32_t>>();
    sequence.top2_gap = from["top2_gap"].get<std::vector<float>>();
    sequence.first_row = from["first_row"];
    for (const auto& layer : from["experts"]) {
      sequence.experts.emplace_back();
      if (!layer.is_null()) layer.get_to(sequence.experts.back());
    }
    golden.sequences.push_back(std::move(sequence));
  }
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

}  // namespace bottega
