// The engine's arithmetic against transformers in float32: logits of every position.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/golden/logits_golden.h"
#include "tests/golden/packed_graph.h"

namespace bottega {
namespace {

const char* const kModels[] = {"random-qwen3moe", "random-yarn", "bottega-tiny"};

class PackedGraphGolden : public testing::TestWithParam<const char*> {
 protected:
  PackedGraphGolden() : golden_(LoadLogitsGolden(GetParam())) {}

  const float* Theirs(const GoldenSequence& sequence, size_t position) const {
    return &golden_.logits[(sequence.first_row + position) * golden_.vocab];
  }

  // Relative error of every position.
  std::vector<double> Errors(PackedGraph& graph, bool forced) {
    std::vector<double> errors;
    int number = 0;
    for (const GoldenSequence& sequence : golden_.sequences) {
      const PackedGraph::Piece whole{.sequence = number++,
                                     .ids = sequence.ids,
                                     .forced = forced ? &sequence.experts : nullptr};
      const std::vector<float> ours = graph.Step({whole});
      for (size_t t = 0; t < sequence.ids.size(); ++t) {
        errors.push_back(
            RelativeError(&ours[t * golden_.vocab], Theirs(sequence, t), golden_.vocab));
      }
    }
    return errors;
  }

  LogitsGolden golden_;
};
INSTANTIATE_TEST_SUITE_P(Models, PackedGraphGolden, testing::ValuesIn(kModels),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(PackedGraphGolden, F32IsTheReferenceAtEveryPosition) {
  PackedGraph graph(PackedForTest(golden_.model, WeightFormat::kF32), {.row_type = DType::kF32});
  const std::vector<double> errors = Errors(graph, false);
  const double worst = *std::max_element(errors.begin(), errors.end());
  std::printf("%s f32: %zu positions, worst %.2e\n", GetParam(), errors.size(), worst);
  EXPECT_LE(worst, 1e-4);
}

TEST_P(PackedGraphGolden, BF16IsCloseToTheReference) {
  PackedGraph graph(PackedForTest(golden_.model, WeightFormat::kBF16), {.row_type = DType::kBF16});
  std::vector<double> errors = Errors(graph, false);
  std::nth_element(errors.begin(), errors.begin() + errors.size() / 2, errors.end());
  const double median = errors[errors.size() / 2];
  PackedGraph again(PackedForTest(golden_.model, WeightFormat::kBF16), {.row_type = DType::kBF16});
  const std::vector<double> forced = Errors(again, true);
  const double worst = *std::max_element(forced.begin(), forced.end());
  std::printf("%s bf16: median %.2e, with the reference's experts worst %.2e\n", GetParam(), median,
              worst);
  EXPECT_LE(median, 1e-2);
  EXPECT_LE(worst, 2e-2);
}

// Asserted where the assistant writes. The user's words were never taught: there the model's choice
// of experts can hang on the last bit (bf16 itself is off by 0.97 at one of 406 such positions),
// and the mean over all positions, printed too, is that of two or three of them.
TEST(PackedGraphQuantised, LosesLittleWhereTheModelWasTaught) {
  const LogitsGolden golden = LoadLogitsGolden("bottega-tiny");
  const struct {
    WeightFormat format;
    double most;
  } cases[] = {
      {WeightFormat::kBF16, 2e-5}, {WeightFormat::kInt8, 0.002}, {WeightFormat::kInt4, 0.02}};
  struct Mean {
    double sum = 0;
    int positions = 0, same = 0;
    void Add(double divergence, bool same_choice) {
      sum += divergence;
      ++positions;
      same += same_choice;
    }
  };
  for (const auto& [format, most] : cases) {
    PackedGraph graph(PackedForTest(golden.model, format), {.row_type = DType::kBF16});
    Mean all, taught;
    int number = 0;
    for (const GoldenSequence& sequence : golden.sequences) {
      const std::vector<bool> writes = AssistantWrites(sequence.ids);
      const std::vector<float> ours = graph.Step({{.sequence = number++, .ids = sequence.ids}});
      for (size_t t = 0; t < sequence.ids.size(); ++t) {
        const float* mine = &ours[t * golden.vocab];
        const float* theirs = &golden.logits[(sequence.first_row + t) * golden.vocab];
        const double divergence = Divergence(theirs, mine, golden.vocab);
        const bool same = std::max_element(mine, mine + golden.vocab) - mine ==
                          std::max_element(theirs, theirs + golden.vocab) - theirs;
        all.Add(divergence, same);
        if (writes[t]) taught.Add(divergence, same);
      }
    }
    std::printf(
        "bottega-tiny %s: KL %.1e where the assistant writes, first choice %d of %d; "
        "KL %.1e everywhere, first choice %d of %d\n",
        std::string(Name(format)).c_str(), taught.sum / taught.positions, taught.same,
        taught.positions, all.sum / all.positions, all.same, all.positions);
    EXPECT_LE(taught.sum / taught.positions, most) << Name(format);
    EXPECT_GE(taught.same, taught.positions * 98 / 100) << Name(format);
  }
}

// Where the reference is surer of its first choice than twice our largest error, we agree with it,
// at every position; at most 5 % of the positions are too close to call. Conversations begin alike:
// a prefix that an earlier one had is the same computation and counts once.
TEST(PackedGraphTopOne, BF16AgreesWhereTheReferenceIsSure) {
  const LogitsGolden golden = LoadLogitsGolden("bottega-tiny");
  PackedGraph graph(PackedForTest(golden.model, WeightFormat::kBF16), {.row_type = DType::kBF16});
  int number = 0;
  int excluded = 0, excluded_sampled = 0;
  int positions = 0, sampled = 0;
  std::set<std::vector<int32_t>> prefixes;
  for (const GoldenSequence& sequence : golden.sequences) {
    const std::vector<bool> writes = AssistantWrites(sequence.ids);
    const std::vector<float> ours = graph.Step({{.sequence = number++, .ids = sequence.ids}});
    for (size_t t = 0; t < sequence.ids.size(); ++t) {
      const float* mine = &ours[t * golden.vocab];
      const float* theirs = &golden.logits[(sequence.first_row + t) * golden.vocab];
      float difference = 0;
      for (size_t i = 0; i < golden.vocab; ++i) {
        difference = std::max(difference, std::abs(mine[i] - theirs[i]));
      }
      if (!prefixes.emplace(sequence.ids.begin(), sequence.ids.begin() + t + 1).second) continue;
      ++positions;
      sampled += writes[t];
      if (sequence.top2_gap[t] <= 2 * difference) {
        ++excluded;
        excluded_sampled += writes[t];
        continue;
      }
      EXPECT_EQ(std::max_element(mine, mine + golden.vocab) - mine,
                std::max_element(theirs, theirs + golden.vocab) - theirs)
          << "sequence " << number - 1 << " position " << t;
    }
  }
  std::printf("bottega-tiny bf16: too close to call %d of %d positions, %d of %d sampled ones\n",
              excluded, positions, excluded_sampled, sampled);
  EXPECT_GT(sampled, positions / 3);
  EXPECT_LE(excluded, positions / 20);
  EXPECT_LE(excluded_sampled, sampled / 20);
}

}  // namespace
}  // namespace bottega
