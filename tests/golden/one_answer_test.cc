// The numerics contract as one sentence: a token's logits depend on its own prefix, the model, the
// format and nothing else. Every comparison here is of bytes.

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "core/base/crc32c.h"
#include "gtest/gtest.h"
#include "tests/golden/packed_graph.h"

namespace bottega {
namespace {

// A line a format: its name, then the CRC32C of each sequence's logits.
constexpr char kGoldenSums[] = "tests/golden/logits/crc32c.txt";

struct Format {
  const char* name;
  const char* model;
  WeightFormat weights;
  DType row_type;
};
const Format kFormats[] = {
    {"qwen3moe_f32_f32", "tests/fixtures/random-qwen3moe", WeightFormat::kF32, DType::kF32},
    {"qwen3moe_bf16_bf16", "tests/fixtures/random-qwen3moe", WeightFormat::kBF16, DType::kBF16},
    {"yarn_f32_bf16", "tests/fixtures/random-yarn", WeightFormat::kF32, DType::kBF16},
    {"yarn_bf16_bf16", "tests/fixtures/random-yarn", WeightFormat::kBF16, DType::kBF16},
    {"qwen3moe_int8_bf16", "tests/fixtures/random-qwen3moe", WeightFormat::kInt8, DType::kBF16},
    {"yarn_int8_f32", "tests/fixtures/random-yarn", WeightFormat::kInt8, DType::kF32},
    {"yarn_int4_bf16", "tests/fixtures/random-yarn", WeightFormat::kInt4, DType::kBF16},
    {"tiny_bf16_bf16", "tests/fixtures/bottega-tiny", WeightFormat::kBF16, DType::kBF16},
    {"tiny_int8_bf16", "tests/fixtures/bottega-tiny", WeightFormat::kInt8, DType::kBF16},
    {"tiny_int4_bf16", "tests/fixtures/bottega-tiny", WeightFormat::kInt4, DType::kBF16},
};

class OneAnswer : public testing::TestWithParam<Format> {
 protected:
  OneAnswer() : model_(PackedForTest(GetParam().model, GetParam().weights)) {
    std::mt19937 random(11);
    for (int length : {1, 15, 16, 17, 40, 83}) {
      std::vector<int32_t> ids;
      for (int i = 0; i < length; ++i) {
        ids.push_back(static_cast<int32_t>(random() % model_->config().vocab_size));
      }
      sequences_.push_back(ids);
    }
  }

  PackedGraph Graph(Isa isa = BestIsa(), int threads = 1) {
    return PackedGraph(model_, {.row_type = GetParam().row_type, .isa = isa, .threads = threads});
  }

  // Each sequence alone, whole, one thread: what every other way must equal.
  std::vector<std::vector<float>> Alone() {
    PackedGraph graph = Graph();
    std::vector<std::vector<float>> out;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      out.push_back(graph.Feed(static_cast<int>(i), sequences_[i], 256));
    }
    return out;
  }

  static void ExpectSame(const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
  }

  std::shared_ptr<const PackedModel> model_;
  std::vector<std::vector<int32_t>> sequences_;
};
INSTANTIATE_TEST_SUITE_P(Formats, OneAnswer, testing::ValuesIn(kFormats),
                         [](const auto& info) { return info.param.name; });

TEST_P(OneAnswer, WhateverTheChunksOfPrefill) {
  const auto alone = Alone();
  for (size_t chunk : {1, 3, 16, 31}) {
    PackedGraph graph = Graph();
    for (size_t i = 0; i < sequences_.size(); ++i) {
      SCOPED_TRACE("chunk " + std::to_string(chunk) + " sequence " + std::to_string(i));
      ExpectSame(graph.Feed(static_cast<int>(i), sequences_[i], chunk), alone[i]);
    }
  }
}

// Written on one machine, holds on any other. Whoever changes the arithmetic on purpose raises
// kArithmeticVersion and replaces the line.
TEST_P(OneAnswer, WhateverTheMachine) {
  std::string line = GetParam().name;
  for (const std::vector<float>& logits : Alone()) {
    line += fmt::format(" {:08x}", Crc32c(logits.data(), logits.size() * sizeof(float)));
  }
  std::ifstream golden(kGoldenSums);
  ASSERT_TRUE(golden) << kGoldenSums;
  std::string known;
  while (std::getline(golden, known)) {
    if (known == line) return;
  }
  FAIL() << "not in " << kGoldenSums << ":\n" << line;
}

TEST_P(OneAnswer, WhateverTheInstructionSetAndThreads) {
  const auto alone = Alone();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (!HasIsa(isa)) continue;
    for (int threads : {1, 2, 3}) {
      if (isa == Isa::kScalar && threads == 3) continue;  // slow, and 2 says it
      PackedGraph graph = Graph(isa, threads);
      for (size_t i = 0; i < sequences_.size(); ++i) {
        SCOPED_TRACE(std::string(Name(isa)) + " threads " + std::to_string(threads));
        ExpectSame(graph.Feed(static_cast<int>(i), sequences_[i], 256), alone[i]);
      }
    }
  }
}

// Random steps: some tokens of some sequences each time, until all are fed.
TEST_P(OneAnswer, WhateverElseIsInTheBatch) {
  const auto alone = Alone();
  const size_t vocab = model_->config().vocab_size;
  for (uint32_t seed = 0; seed < 6; ++seed) {
    std::mt19937 random(seed);
    PackedGraph graph = Graph(BestIsa(), 2);
    std::vector<size_t> fed(sequences_.size(), 0);
    std::vector<std::vector<float>> got(sequences_.size());
    while (true) {
      std::vector<PackedGraph::Piece> pieces;
      for (size_t i = 0; i < sequences_.size(); ++i) {
        const size_t left = sequences_[i].size() - fed[i];
        if (left == 0 || random() % 3 == 0) continue;
        const size_t count = std::min(left, 1 + random() % 20);
        pieces.push_back(
            {.sequence = static_cast<int>(i),
             .ids = {sequences_[i].begin() + fed[i], sequences_[i].begin() + fed[i] + count}});
        fed[i] += count;
      }
      if (pieces.empty()) {
        bool all = true;
        for (size_t i = 0; i < sequences_.size(); ++i) all &= fed[i] == sequences_[i].size();
        if (all) break;
        continue;
      }
      const std::vector<float> logits = graph.Step(pieces);
      size_t row = 0;
      for (const auto& piece : pieces) {
        got[piece.sequence].insert(got[piece.sequence].end(), logits.begin() + row * vocab,
                                   logits.begin() + (row + piece.ids.size()) * vocab);
        row += piece.ids.size();
      }
    }
    for (size_t i = 0; i < sequences_.size(); ++i) {
      SCOPED_TRACE("seed " + std::to_string(seed) + " sequence " + std::to_string(i));
      ExpectSame(got[i], alone[i]);
    }
  }
}

}  // namespace
}  // namespace bottega
