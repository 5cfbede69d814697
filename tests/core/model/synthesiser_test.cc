#include "core/model/synthesiser.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "core/base/reason.h"
#include "core/kernels/quantised.h"
#include "core/model/packed_model.h"
#include "core/tensor/bf16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"
#include "tests/golden/packed_graph.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

// Narrow, with the experts of the real model; 8 lanes of the head's last tile are no token, and a
// width of 40 leaves lanes in plain tiles too.
json NarrowConfig(int layers) {
  json config = SmallConfig();
  config.update({{"vocab_size", 600},
                 {"hidden_size", 128},
                 {"num_hidden_layers", layers},
                 {"num_experts", 64},
                 {"num_experts_per_tok", 8},
                 {"moe_intermediate_size", 40}});
  return config;
}

std::shared_ptr<const PackedModel> Synthesised(const json& config, const fs::path& out,
                                               SynthesisOptions options) {
  const absl::Status status = SynthesiseModel(config.dump(), out, options);
  EXPECT_TRUE(status.ok()) << status;
  auto model = PackedModel::Open(out);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : nullptr;
}

std::vector<int32_t> RandomIds(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> ids;
  while (ids.size() < count) ids.push_back(static_cast<int32_t>(random() % 600));
  return ids;
}

void ExpectFinite(const std::vector<float>& logits) {
  EXPECT_TRUE(std::ranges::all_of(logits, [](float value) { return std::isfinite(value); }));
  const auto [least, most] = std::ranges::minmax(logits);
  EXPECT_GT(most - least, 1.0f);
}

TEST(Synthesiser, OpensAndVerifiesInEveryFormat) {
  json config = NarrowConfig(3);
  config["mlp_only_layers"] = {1};
  config["intermediate_size"] = 56;
  for (const WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    auto model = Synthesised(config, dir / "out", {.weights = weights});
    ASSERT_TRUE(model);
    EXPECT_EQ(model->weights(), weights);
    const absl::Status verified = model->Verify(nullptr);
    EXPECT_TRUE(verified.ok()) << verified;
    EXPECT_EQ(model->manifest().sources[0].name, "random weights, seed 1");
    EXPECT_EQ(*model->ReadCopiedFile("config.json"), config.dump());
    PackedGraph graph(model, {});
    ExpectFinite(graph.Feed(0, RandomIds(4, 1), 4));
  }
}

std::map<std::string, std::string> FilesOf(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    files[entry.path().filename().string()] = ReadFileBytes(entry.path());
  }
  return files;
}

TEST(Synthesiser, TheSeedDecidesNotTheThreads) {
  const json config = NarrowConfig(2);
  for (const WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    Synthesised(config, dir / "one", {.weights = weights, .seed = 5, .threads = 1});
    Synthesised(config, dir / "four", {.weights = weights, .seed = 5, .threads = 4});
    Synthesised(config, dir / "other", {.weights = weights, .seed = 6, .threads = 4});
    const auto one = FilesOf(dir / "one"), other = FilesOf(dir / "other");
    EXPECT_EQ(one, FilesOf(dir / "four"));
    EXPECT_EQ(one.size(), 9u);  // 3 weight files, manifest and its digest, 4 of text
    for (const auto& [name, bytes] : one) {
      const bool weight_file = name.ends_with(".weights") || name.starts_with("manifest");
      EXPECT_EQ(bytes == other.at(name), !weight_file) << name;
    }
  }
}

// What random models get wrong: layers that add the same to every token make all tokens choose the
// same experts. 16 tokens that choose 8 of 64 by lot touch 56.
TEST(Synthesiser, RoutingIsSpreadAtTheLastLayer) {
  for (const WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    auto model = Synthesised(NarrowConfig(24), dir / "out", {.weights = weights});
    ASSERT_TRUE(model);
    PackedGraph graph(model, {});
    auto touched = [&graph] {
      return std::set<uint16_t>(graph.last_experts().begin(), graph.last_experts().end()).size();
    };
    // One sequence, whose tokens attend to one another.
    ExpectFinite(graph.Step({{.sequence = 0, .ids = RandomIds(16, 1)}}));
    EXPECT_GE(touched(), 45u) << Name(weights);
    // Sixteen that go on by one token after a history of 48.
    for (int sequence = 1; sequence <= 16; ++sequence) {
      graph.Feed(sequence, RandomIds(48, static_cast<uint32_t>(sequence)), 48);
    }
    std::vector<PackedGraph::Piece> pieces;
    for (int sequence = 1; sequence <= 16; ++sequence) {
      pieces.push_back({.sequence = sequence, .ids = {RandomIds(49, 99 + sequence)[48]}});
    }
    ExpectFinite(graph.Step(pieces));
    EXPECT_GE(touched(), 45u) << Name(weights);
  }
}

// The embedding as f32 rows.
std::vector<float> Embedding(const PackedModel& model, const std::byte* table, size_t row) {
  const size_t k = static_cast<size_t>(model.config().hidden_size);
  std::vector<float> values(k);
  if (IsQuantised(model.weights())) {
    ReadTableRow(model.weights(),
                 table + row * QuantisedTableRowBytes(model.weights(), static_cast<int64_t>(k)),
                 absl::MakeSpan(values));
    return values;
  }
  for (size_t i = 0; i < k; ++i) {
    if (model.weights() == WeightFormat::kF32) {
      values[i] = reinterpret_cast<const float*>(table)[row * k + i];
    } else {
      values[i] = Widen(reinterpret_cast<const BF16*>(table)[row * k + i]);
    }
  }
  return values;
}

TEST(Synthesiser, TheEmbeddingIsOfDeviationOneAndNormsAreOne) {
  for (const WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    auto model = Synthesised(NarrowConfig(1), dir / "out", {.weights = weights});
    ASSERT_TRUE(model);
    auto attention = model->MapAttention();
    ASSERT_TRUE(attention.ok()) << attention.status();
    double squares = 0;
    for (size_t row = 0; row < 600; ++row) {
      for (const float value : Embedding(*model, attention->embedding, row)) {
        squares += value * value;
      }
    }
    EXPECT_NEAR(squares / (600 * 128), 1.0, 0.02) << Name(weights);
    for (int i = 0; i < 128; ++i) {
      ASSERT_EQ(attention->final_norm[i], 1.0f);
      ASSERT_EQ(attention->layers[0].input_norm[i], 1.0f);
    }
  }
}

// Lanes that no output has are as the packer writes them: zeros, so that they add nothing.
TEST(Synthesiser, LanesWithoutAnOutputAreZero) {
  for (const WeightFormat weights : kEveryWeightFormat) {
    TempDir dir;
    auto model = Synthesised(NarrowConfig(1), dir / "out", {.weights = weights});
    ASSERT_TRUE(model);
    auto attention = model->MapAttention();
    ASSERT_TRUE(attention.ok()) << attention.status();
    const int64_t k = 128, first = 592;  // the last tile has 8 of 16
    if (!IsQuantised(weights)) {
      const size_t element = SizeOf(ElementOf(weights));
      const std::byte* tile = attention->lm_head.data + first * k * static_cast<int64_t>(element);
      for (int64_t i = 0; i < k; ++i, tile += 16 * element) {
        EXPECT_TRUE(std::all_of(tile + 8 * element, tile + 16 * element,
                                [](std::byte byte) { return byte == std::byte{0}; }));
        EXPECT_TRUE(std::any_of(tile, tile + 8 * element,
                                [](std::byte byte) { return byte != std::byte{0}; }));
      }
      continue;
    }
    // 38 tiles: 12 panels of three and one of two.
    const QuantisedShape shape = attention->lm_head.quantised().shape;
    const std::byte* panel = attention->lm_head.data + shape.PanelOffset(12);
    std::vector<std::byte> zeros(shape.PanelBytes(2));
    PackQuantised(
        {.format = weights, .n = 32, .k = k},
        [](int64_t, float* row) { std::fill_n(row, 128, 0.0f); }, zeros.data());
    const int64_t parts = shape.group() / shape.weight_group();
    const size_t scales = shape.ScaleBytes(2), values = shape.ValueBytes(2);
    size_t differing = 0;
    for (size_t at = 0; at < zeros.size(); ++at) {
      const size_t in_group = at % (scales + values);
      const bool is_scale = in_group < scales;
      if (is_scale && in_group >= static_cast<size_t>(parts) * 64) continue;
      const size_t lane = is_scale ? in_group / 2 % 32 : (in_group - scales) / 4 % 32;
      if (lane >= 24) {
        ASSERT_EQ(panel[at], zeros[at]) << at;
      }
      differing += panel[at] != zeros[at];
    }
    EXPECT_GT(differing, zeros.size() / 2);
  }
}

struct Refused {
  Reason reason;
  std::string message;
};
Refused Refusal(const json& config, const fs::path& out, SynthesisOptions options = {}) {
  const absl::Status status = SynthesiseModel(config.dump(), out, options);
  EXPECT_FALSE(status.ok());
  return {ReasonOf(status), std::string(status.message())};
}

TEST(Synthesiser, Refusals) {
  TempDir dir;
  json config = NarrowConfig(1);
  config["tie_word_embeddings"] = true;
  EXPECT_THAT(Refusal(config, dir / "out").message, HasSubstr("tie_word_embeddings"));
  config = NarrowConfig(1);
  config["moe_intermediate_size"] = 28;
  const Refused width = Refusal(config, dir / "out", {.weights = WeightFormat::kInt4});
  EXPECT_EQ(width.reason, Reason::kModelRefused);
  EXPECT_THAT(width.message, HasSubstr("moe_intermediate_size to be a multiple of 8; it is 28"));
  EXPECT_TRUE(fs::is_empty(dir.path()));

  fs::create_directory(dir / "out");
  EXPECT_THAT(Refusal(NarrowConfig(1), dir / "out").message, HasSubstr("exists"));
  EXPECT_TRUE(fs::is_empty(dir / "out"));
}

// 200 TB are asked for before a byte is written, and nothing is left of the attempt.
TEST(Synthesiser, TheDiskIsAskedFirst) {
  TempDir dir;
  json config = NarrowConfig(40);
  config.update({{"num_experts", 1600}, {"hidden_size", 16384}, {"moe_intermediate_size", 16384}});
  const Refused refused = Refusal(config, dir / "out", {.weights = WeightFormat::kF32});
  EXPECT_THAT(refused.message, testing::AllOf(HasSubstr("not enough disk"), HasSubstr("free are"),
                                              HasSubstr("/out needs")));
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

// An error says nothing against what an interrupted `bottega pack` has left there to go on with.
TEST(Synthesiser, AnErrorBeforeTheFirstByteKeepsWhatAnotherRunLeft) {
  TempDir dir;
  const auto left = [&] {
    fs::create_directories(dir / "out.partial");
    WriteFileBytes(dir / "out.partial/journal", "x\n");
  };
  left();
  fs::create_directory(dir / "out");
  EXPECT_THAT(Refusal(NarrowConfig(1), dir / "out").message, HasSubstr("exists"));
  EXPECT_TRUE(fs::exists(dir / "out.partial/journal"));
  fs::remove(dir / "out");

  json config = NarrowConfig(40);
  config.update({{"num_experts", 1600}, {"hidden_size", 16384}, {"moe_intermediate_size", 16384}});
  const Refused refused = Refusal(config, dir / "out", {.weights = WeightFormat::kF32});
  EXPECT_THAT(refused.message, HasSubstr("not enough disk"));
  EXPECT_TRUE(fs::exists(dir / "out.partial/journal"));
}

// What an interrupted run left is no part of the next one's result.
TEST(Synthesiser, StartsAnewAfterAnInterruption) {
  TempDir dir;
  fs::create_directory(dir / "out.partial");
  WriteFileBytes(dir / "out.partial/journal", "x\n");
  WriteFileBytes(dir / "out.partial/attention.weights", "x");
  ASSERT_TRUE(Synthesised(NarrowConfig(1), dir / "out", {}));
  EXPECT_FALSE(fs::exists(dir / "out.partial"));
  EXPECT_FALSE(fs::exists(dir / "out/journal"));
  ASSERT_TRUE(Synthesised(NarrowConfig(1), dir / "fresh", {}));
  EXPECT_EQ(FilesOf(dir / "out"), FilesOf(dir / "fresh"));
}

}  // namespace
}  // namespace bottega
