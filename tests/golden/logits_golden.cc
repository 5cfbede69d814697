#include "tests/golden/logits_golden.h"

#include <algorithm>
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

std::vector<bool> AssistantWrites(const std::vector<int32_t>& ids) {
  constexpr int32_t kTurnBegin = 1012, kTurnEnd = 1013, kAssistant = 277;
  std::vector<bool> writes(ids.size());
  bool inside = false;
  for (size_t t = 0; t < ids.size(); ++t) {
    if (ids[t] == kTurnBegin) inside = t + 1 < ids.size() && ids[t + 1] == kAssistant;
    if (ids[t] == kTurnEnd) inside = false;
    writes[t] = inside;
  }
  return writes;
}

double Divergence(const float* theirs, const float* ours, size_t count) {
  const auto log_sum = [count](const float* logits) {
    const double top = *std::max_element(logits, logits + count);
    double sum = 0;
    for (size_t i = 0; i < count; ++i) sum += std::exp(logits[i] - top);
    return top + std::log(sum);
  };
  const double their_sum = log_sum(theirs), our_sum = log_sum(ours);
  double divergence = 0;
  for (size_t i = 0; i < count; ++i) {
    const double log_p = theirs[i] - their_sum, log_q = ours[i] - our_sum;
    divergence += std::exp(log_p) * (log_p - log_q);
  }
  return divergence;
}

}  // namespace bottega
