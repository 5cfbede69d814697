#include "core/model/packed_model.h"

#include <functional>
#include <map>
#include <random>

#include "core/base/reason.h"
#include "core/kernels/swiglu.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/packer.h"
#include "core/model/sha256.h"
#include "core/tensor/bf16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/model/checkpoint_writer.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

std::shared_ptr<const PackedModel> Packed(const fs::path& dir, const fs::path& out,
                                          WeightFormat weights) {
  PackOptions options;
  options.weights = weights;
  absl::Status status = PackModel(dir, out, options);
  EXPECT_TRUE(status.ok()) << status;
  auto model = PackedModel::Open(out);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? *model : nullptr;
}

float Element(const void* data, DType dtype, size_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  return Widen(static_cast<const BF16*>(data)[index]);
}

// A source tensor as f32, rounded as the packed format rounds.
class Source {
 public:
  Source(const std::vector<TensorToWrite>& tensors, WeightFormat weights)
      : weights_(IsQuantised(weights) ? DType::kF32 : ElementOf(weights)) {
    for (const TensorToWrite& tensor : tensors) tensors_[tensor.name] = &tensor;
  }
  float operator()(const std::string& name, size_t index) const {
    return At(name, index, weights_);
  }
  float Exact(const std::string& name, size_t index) const { return At(name, index, DType::kF32); }

 private:
  float At(const std::string& name, size_t index, DType weights) const {
    const TensorToWrite& tensor = *tensors_.at(name);
    float value =
        Element(tensor.bytes.data(), tensor.dtype == "F32" ? DType::kF32 : DType::kBF16, index);
    return weights == DType::kBF16 ? Widen(RoundToBF16(value)) : value;
  }
  DType weights_;
  std::map<std::string, const TensorToWrite*> tensors_;
};

// Element (n, k) of a matrix in tiles, from the layout's definition.
float TileElement(const PackedMatrix& m, int64_t n, int64_t k) {
  int64_t index = (n / 16 * m.k + k) * 16 + n % 16;
  return Element(m.data, m.dtype, static_cast<size_t>(index));
}

void ExpectTiles(const PackedMatrix& packed, int64_t first_row, int64_t rows, const Source& source,
                 const std::string& name, bool exact = false) {
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t k = 0; k < packed.k; ++k) {
      size_t index = static_cast<size_t>(n * packed.k + k);
      float expected = exact ? source.Exact(name, index) : source(name, index);
      ASSERT_EQ(TileElement(packed, first_row + n, k), expected) << name << " " << n << " " << k;
    }
  }
}

std::vector<float> Row(const Source& source, const std::string& name, int64_t row, int64_t k) {
  std::vector<float> values(k);
  for (int64_t i = 0; i < k; ++i) values[i] = source(name, static_cast<size_t>(row * k + i));
  return values;
}

// A quantised matrix has the bytes that its rows make when they are packed in one piece.
template <class RowOf>
void ExpectQuantised(const QuantisedMatrix& matrix, const RowOf& row_of) {
  ASSERT_EQ(reinterpret_cast<uintptr_t>(matrix.data) % 64, 0u);
  std::vector<std::byte> expected(matrix.shape.bytes());
  PackQuantised(
      matrix.shape, [&](int64_t row, float* out) { std::ranges::copy(row_of(row), out); },
      expected.data());
  ASSERT_EQ(std::memcmp(matrix.data, expected.data(), expected.size()), 0);
}

struct Stack {
  std::string name;
  int64_t rows;
};
// A matrix of sources, one under the other.
void ExpectMatrix(const WeightMatrix& matrix, const std::vector<Stack>& stack,
                  const Source& source) {
  if (IsQuantised(matrix.format)) {
    ExpectQuantised(matrix.quantised(), [&](int64_t row) {
      auto from = stack.begin();
      for (; row >= from->rows; ++from) row -= from->rows;
      return Row(source, from->name, row, matrix.k);
    });
    return;
  }
  const PackedMatrix packed = matrix.plain();
  int64_t first = 0;
  for (const Stack& one : stack) {
    ExpectTiles(packed, first, one.rows, source, one.name);
    first += one.rows;
  }
  for (int64_t n = matrix.n; n < RoundUpToTile(matrix.n); ++n) {
    for (int64_t k = 0; k < matrix.k; ++k) ASSERT_EQ(TileElement(packed, n, k), 0.0f);
  }
}

void ExpectEmbedding(const PackedModel& model, const std::byte* embedding, const Source& source) {
  const int64_t hidden = model.config().hidden_size;
  for (int64_t row = 0; row < model.config().vocab_size; ++row) {
    const auto expected = Row(source, "model.embed_tokens.weight", row, hidden);
    if (IsQuantised(model.weights())) {
      std::vector<std::byte> bytes(QuantisedTableRowBytes(model.weights(), hidden));
      QuantiseTableRow(model.weights(), expected, bytes.data());
      ASSERT_EQ(std::memcmp(embedding + row * bytes.size(), bytes.data(), bytes.size()), 0) << row;
      continue;
    }
    for (int64_t i = 0; i < hidden; ++i) {
      ASSERT_EQ(Element(embedding, ElementOf(model.weights()), row * hidden + i), expected[i]);
    }
  }
}

void ExpectMlp(const GatedMlpWeights& mlp, int64_t width, int64_t hidden, const Source& source,
               const std::string& prefix) {
  ASSERT_EQ(mlp.width, width);
  ASSERT_EQ(mlp.gate_up.k, hidden);
  ASSERT_EQ(mlp.down.n, hidden);
  ASSERT_EQ(mlp.down.k, width);
  if (IsQuantised(mlp.gate_up.format)) {
    ExpectQuantised(mlp.quantised_gate_up(), [&](int64_t row) {
      const GateUpRow from = GateUpRow::Of(row);
      return Row(source, prefix + (from.up ? "up_proj" : "gate_proj") + ".weight", from.row,
                 hidden);
    });
    ExpectQuantised(mlp.down.quantised(), [&](int64_t row) {
      return Row(source, prefix + "down_proj.weight", row, width);
    });
    return;
  }
  ASSERT_EQ(mlp.gate_up.n, GateUpOutputs(width));
  const PackedMatrix gate_up = mlp.gate_up.plain();
  for (int64_t c = 0; c < RoundUpToTile(width); ++c) {
    for (int64_t k = 0; k < hidden; ++k) {
      // Tiles alternate: gate, up, gate, up.
      int64_t gate_row = c / 16 * 32 + c % 16;
      size_t index = static_cast<size_t>(c * hidden + k);
      float gate = c < width ? source(prefix + "gate_proj.weight", index) : 0.0f;
      float up = c < width ? source(prefix + "up_proj.weight", index) : 0.0f;
      ASSERT_EQ(TileElement(gate_up, gate_row, k), gate);
      ASSERT_EQ(TileElement(gate_up, gate_row + 16, k), up);
    }
  }
  ExpectTiles(mlp.down.plain(), 0, hidden, source, prefix + "down_proj.weight");
}

void ExpectVector(const float* values, const Source& source, const std::string& name,
                  int64_t count) {
  ASSERT_EQ(reinterpret_cast<uintptr_t>(values) % 64, 0u);
  for (int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(values[i], source.Exact(name, static_cast<size_t>(i))) << name;
  }
}

void ExpectAsSource(const PackedModel& model, const std::vector<TensorToWrite>& tensors) {
  const ModelConfig& c = model.config();
  const Source source(tensors, model.weights());
  auto attention = model.MapAttention();
  ASSERT_TRUE(attention.ok()) << attention.status();
  ASSERT_EQ(attention->layers.size(), static_cast<size_t>(c.num_layers));
  ExpectEmbedding(model, attention->embedding, source);
  ExpectVector(attention->final_norm, source, "model.norm.weight", c.hidden_size);
  ASSERT_EQ(attention->lm_head.n, c.vocab_size);
  ExpectMatrix(attention->lm_head,
               {{c.tied_head ? "model.embed_tokens.weight" : "lm_head.weight", c.vocab_size}},
               source);
  for (int layer = 0; layer < c.num_layers; ++layer) {
    const LayerWeights& w = attention->layers[static_cast<size_t>(layer)];
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    ExpectVector(w.input_norm, source, prefix + "input_layernorm.weight", c.hidden_size);
    ExpectVector(w.post_attention_norm, source, prefix + "post_attention_layernorm.weight",
                 c.hidden_size);
    ExpectVector(w.q_norm, source, prefix + "self_attn.q_norm.weight", c.head_dim);
    ExpectVector(w.k_norm, source, prefix + "self_attn.k_norm.weight", c.head_dim);
    ASSERT_EQ(w.qkv.n, c.q_dim() + 2 * c.kv_dim());
    ExpectMatrix(w.qkv,
                 {{prefix + "self_attn.q_proj.weight", c.q_dim()},
                  {prefix + "self_attn.k_proj.weight", c.kv_dim()},
                  {prefix + "self_attn.v_proj.weight", c.kv_dim()}},
                 source);
    ExpectMatrix(w.o, {{prefix + "self_attn.o_proj.weight", c.hidden_size}}, source);
    ASSERT_EQ(w.is_moe, c.is_moe_layer[static_cast<size_t>(layer)] != 0);
    if (!w.is_moe) {
      ExpectMlp(w.dense, c.dense_width, c.hidden_size, source, prefix + "mlp.");
      EXPECT_FALSE(model.MapExpert({static_cast<uint16_t>(layer)}, {0}).ok());
      continue;
    }
    ASSERT_EQ(w.gate.dtype, DType::kF32);
    ExpectTiles(w.gate, 0, c.num_experts, source, prefix + "mlp.gate.weight", /*exact=*/true);
    for (int expert = 0; expert < c.num_experts; ++expert) {
      auto e = model.MapExpert({static_cast<uint16_t>(layer)}, {static_cast<uint16_t>(expert)});
      ASSERT_TRUE(e.ok()) << e.status();
      ExpectMlp(e->mlp, c.expert_width, c.hidden_size, source,
                prefix + "mlp.experts." + std::to_string(expert) + ".");
    }
  }
}

json OddConfig() {
  json config = SmallConfig();
  config["model_type"] = "qwen3_moe";
  config["num_attention_heads"] = 10;
  config["head_dim"] = 8;
  config["num_hidden_layers"] = 3;
  config["mlp_only_layers"] = {1};
  config["intermediate_size"] = 56;
  config["tie_word_embeddings"] = true;
  config["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 2.0}};
  return config;
}

json ManyExpertsConfig() {
  json config = SmallConfig();
  config["num_hidden_layers"] = 1;
  config["num_experts"] = 128;
  config["num_experts_per_tok"] = 8;
  config["moe_intermediate_size"] = 8;
  config["hidden_size"] = 16;
  return config;
}

TEST(PackedModel, EveryElementIsTheSources) {
  for (const json& config : {SmallConfig(), OddConfig(), ManyExpertsConfig()}) {
    for (DType from : {DType::kF32, DType::kBF16}) {
      for (WeightFormat to : kEveryWeightFormat) {
        TempDir dir;
        WriteCheckpoint(dir / "hf", {.config = config, .dtype = from, .shards = 2, .seed = 3});
        auto model = Packed(dir / "hf", dir / "packed", to);
        ASSERT_TRUE(model);
        EXPECT_EQ(model->weights(), to);
        ExpectAsSource(*model, RandomTensors(config, from, 3));
        EXPECT_TRUE(model->Verify(nullptr).ok());
      }
    }
  }
}

// Matrices larger than one piece of the packer (4 MiB of f32): pieces must join without a seam.
TEST(PackedModel, LargeMatricesArePackedInPieces) {
  json config = ManyExpertsConfig();
  config["num_experts"] = 2;
  config["num_experts_per_tok"] = 1;
  config["hidden_size"] = 1024;
  config["vocab_size"] = 2501;
  config["num_attention_heads"] = 24;
  config["num_key_value_heads"] = 12;
  config["head_dim"] = 40;  // q 960 rows, k and v 480: a piece of 1024 rows spans q and k
  for (WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    config["moe_intermediate_size"] = IsQuantised(format) ? 1104 : 1100;
    TempDir dir;
    WriteCheckpoint(dir / "hf", {.config = config});
    auto model = Packed(dir / "hf", dir / "packed", format);
    ASSERT_TRUE(model);
    ExpectAsSource(*model, RandomTensors(config, DType::kBF16, 1));
  }
}

TEST(PackedModel, QuantisedNeedsInputsInEights) {
  json config = SmallConfig();
  config["moe_intermediate_size"] = 28;
  TempDir dir;
  WriteCheckpoint(dir / "hf", {.config = config});
  PackOptions options;
  options.weights = WeightFormat::kInt4;
  const absl::Status status = PackModel(dir / "hf", dir / "packed", options);
  EXPECT_EQ(ReasonOf(status), Reason::kModelRefused);
  EXPECT_THAT(std::string(status.message()), HasSubstr("moe_intermediate_size"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("28"));
}

TEST(PackedModel, CarriesConfigRopeAndFiles) {
  TempDir dir;
  WriteCheckpoint(dir / "hf", {.config = OddConfig()});
  auto model = Packed(dir / "hf", dir / "packed", WeightFormat::kBF16);
  ASSERT_TRUE(model);
  auto config = ReadModelConfig(dir / "hf");
  ASSERT_TRUE(config.ok());
  EXPECT_EQ(NormalisedConfigJson(model->config()), NormalisedConfigJson(*config));
  EXPECT_EQ(model->config().eos_ids, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(model->config().sampling.temperature, 0.6);
  EXPECT_EQ(model->rope().inv_freq, MakeRopeTable(*config).inv_freq);
  EXPECT_EQ(model->rope().attention_scaling, MakeRopeTable(*config).attention_scaling);
  EXPECT_EQ(model->numerics_base(), "v2-bf16");
  for (const char* name :
       {"tokenizer.json", "chat_template.jinja", "generation_config.json", "config.json"}) {
    auto content = model->ReadCopiedFile(name);
    ASSERT_TRUE(content.ok()) << name;
    EXPECT_EQ(*content, ReadFileBytes(dir / ("hf/" + std::string(name))));
  }
  EXPECT_EQ(model->ReadCopiedFile("absent").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(model->digest(), Sha256Hex(ReadFileBytes(dir / "packed/manifest.json")));
  ASSERT_EQ(model->manifest().sources.size(), 1u);
  EXPECT_EQ(model->manifest().sources[0].sha256,
            Sha256Hex(ReadFileBytes(dir / "hf/model.safetensors")));
}

// The same model packed twice, by different numbers of threads, is the same bytes and digest.
TEST(PackedModel, PackingIsReproducible) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  PackOptions options;
  options.threads = 1;
  ASSERT_TRUE(PackModel(dir / "hf", dir / "one", options).ok());
  options.threads = 5;
  ASSERT_TRUE(PackModel(dir / "hf", dir / "five", options).ok());
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(dir / "one")) {
    EXPECT_EQ(ReadFileBytes(entry.path()), ReadFileBytes(dir / "five" / entry.path().filename()));
    ++files;
  }
  EXPECT_EQ(files, 9u);  // 3 weight files, manifest and its digest, 4 copied
}

// Open and map all: what a worker that held the whole model would do.
absl::Status LoadAll(const fs::path& dir) {
  auto model = PackedModel::Open(dir);
  if (!model.ok()) return model.status();
  if (auto attention = (*model)->MapAttention(); !attention.ok()) return attention.status();
  const ModelConfig& c = (*model)->config();
  for (uint16_t layer = 0; layer < c.num_layers; ++layer) {
    for (uint16_t expert = 0; c.is_moe_layer[layer] && expert < c.num_experts; ++expert) {
      if (auto e = (*model)->MapExpert({layer}, {expert}); !e.ok()) return e.status();
    }
  }
  return absl::OkStatus();
}

struct FileImage {
  fs::path path;
  uint64_t begin;  // among the bytes of all files
  uint64_t bytes;
};

class PackedIn : public testing::TestWithParam<WeightFormat> {};
INSTANTIATE_TEST_SUITE_P(EveryWeightFormat, PackedIn, testing::ValuesIn(kEveryWeightFormat),
                         [](const auto& info) { return std::string(Name(info.param)); });

// One flipped bit anywhere in the directory is refused, at load, by whoever reads that byte.
TEST_P(PackedIn, M7_AThousandFlippedBitsAreRefused) {
  TempDir dir;
  WriteCheckpoint(dir / "hf", {.config = OddConfig()});
  ASSERT_TRUE(Packed(dir / "hf", dir / "packed", GetParam()));
  std::vector<FileImage> files;
  uint64_t total = 0;
  for (const auto& entry : fs::directory_iterator(dir / "packed")) {
    files.push_back({entry.path(), total, entry.file_size()});
    total += entry.file_size();
  }
  std::mt19937_64 random(7);
  auto flip = [&](const FileImage& file, uint64_t bit) {
    std::fstream stream(file.path, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekg(static_cast<std::streamoff>(bit / 8));
    char byte = static_cast<char>(stream.get() ^ (1 << (bit % 8)));
    stream.seekp(static_cast<std::streamoff>(bit / 8));
    stream.put(byte);
  };
  auto expect_refused = [&](const FileImage& file, uint64_t bit) {
    flip(file, bit);
    absl::Status status = LoadAll(dir / "packed");
    flip(file, bit);
    ASSERT_FALSE(status.ok()) << file.path << " bit " << bit;
    EXPECT_EQ(ReasonOf(status), Reason::kModelRefused);
  };
  // 900 over all bytes (the weights, mostly), 100 over the files, so that small ones get their
  // share.
  for (int i = 0; i < 1000; ++i) {
    const FileImage* file = &files[random() % files.size()];
    uint64_t bit = random() % (file->bytes * 8);
    if (i < 900) {
      uint64_t at = random() % total;
      for (const FileImage& candidate : files) {
        if (at >= candidate.begin && at < candidate.begin + candidate.bytes) file = &candidate;
      }
      bit = (at - file->begin) * 8 + random() % 8;
    }
    expect_refused(*file, bit);
  }
  EXPECT_TRUE(LoadAll(dir / "packed").ok());
}

TEST(PackedModel, VerifySeesAFlippedBitToo) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  auto model = Packed(dir / "hf", dir / "packed", WeightFormat::kBF16);
  std::string bytes = ReadFileBytes(dir / "packed/experts.001.weights");
  bytes[bytes.size() / 2] ^= 1;
  WriteFileBytes(dir / "packed/experts.001.weights", bytes);
  EXPECT_THAT(std::string(model->Verify(nullptr).message()), HasSubstr("SHA-256 differs"));
}

TEST(PackedModel, WhatIsReadIsCountedWhileItIsHeld) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  ASSERT_TRUE(Packed(dir / "hf", dir / "packed", WeightFormat::kBF16));
  LoadProgress progress;
  FaultPoints faults;
  ThreadPool pool(3);
  auto opened =
      PackedModel::Open(dir / "packed", {.pool = &pool, .progress = &progress, .faults = &faults});
  ASSERT_TRUE(opened.ok()) << opened.status();
  const PackedModel& model = **opened;
  progress.Expect(static_cast<int64_t>(model.AttentionBytes() + model.AllExpertBytes()));
  EXPECT_EQ(progress.ratio(), 0);
  {
    auto attention = model.MapAttention();
    ASSERT_TRUE(attention.ok()) << attention.status();
    EXPECT_EQ(progress.loaded(), static_cast<int64_t>(model.AttentionBytes()));
    std::vector<ExpertWeights> experts;
    double before = progress.ratio();
    for (uint16_t layer = 0; layer < model.config().num_layers; ++layer) {
      if (!model.config().is_moe_layer[layer]) continue;
      for (uint16_t expert = 0; expert < model.config().num_experts; ++expert) {
        experts.push_back(*model.MapExpert({layer}, {expert}));
        EXPECT_GT(progress.ratio(), before);
        before = progress.ratio();
      }
    }
    EXPECT_EQ(progress.ratio(), 1);
    experts.pop_back();
    EXPECT_EQ(progress.expected() - progress.loaded(), static_cast<int64_t>(model.ExpertBytes()));
  }
  EXPECT_EQ(progress.loaded(), 0);
#ifdef BOTTEGA_FAULT_POINTS
  ASSERT_TRUE(faults.Arm("load.region=error@1").ok());
  EXPECT_FALSE(model.MapExpert({0}, {5}).ok());
  EXPECT_EQ(progress.loaded(), 0);  // of one that is refused nothing counts
  EXPECT_TRUE(model.MapExpert({0}, {5}).ok());
#endif
}

// The file is cut while the model is open.
TEST(PackedModel, M9_CutAndMissingFilesAreRefused) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  auto model = Packed(dir / "hf", dir / "packed", WeightFormat::kBF16);
  fs::path file = dir / "packed/experts.000.weights";
  uint64_t size = fs::file_size(file);
  {
    const auto held = model->MapExpert({0}, {0});  // and with it the file as it was
    ASSERT_TRUE(held.ok());
    fs::resize_file(file, size - 4096);
    const absl::Status status = model->MapExpert({0}, {5}).status();  // and no SIGBUS
    EXPECT_EQ(ReasonOf(status), Reason::kModelRefused) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("layer.0.expert.5 cannot be read"));
  }
  EXPECT_FALSE(model->MapExpert({0}, {5}).ok());
  EXPECT_FALSE(PackedModel::Open(dir / "packed").ok());
  fs::remove(file);
  EXPECT_FALSE(model->MapExpert({0}, {5}).ok());
  EXPECT_THAT(std::string(PackedModel::Open(dir / "packed").status().message()),
              HasSubstr("experts.000"));
}

// Another file takes the name of a mapped one: what is mapped keeps its bytes, and what is asked of
// the new one is compared with the manifest that was read.
TEST_P(PackedIn, M9_AFileReplacedWhileMappedChangesNoByte) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  WriteCheckpoint(dir / "other", {.seed = 2});
  const auto model = Packed(dir / "hf", dir / "packed", GetParam());
  ASSERT_TRUE(Packed(dir / "other", dir / "replacement", GetParam()));
  auto held = model->MapExpert({0}, {0});
  ASSERT_TRUE(held.ok());
  const auto bytes_of = [&](const ExpertWeights& expert) {
    const std::byte* data = expert.mapping.data();
    return std::vector<std::byte>(data, data + model->ExpertBytes());
  };
  const std::vector<std::byte> before = bytes_of(*held);
  fs::rename(dir / "replacement/experts.000.weights", dir / "packed/experts.000.weights");
  EXPECT_EQ(bytes_of(*held), before);
  EXPECT_TRUE(model->MapExpert({0}, {5}).ok());  // of the file that is still held
  held = absl::CancelledError();
  const absl::Status replaced = model->MapExpert({0}, {0}).status();
  EXPECT_EQ(ReasonOf(replaced), Reason::kModelRefused);
  EXPECT_THAT(std::string(replaced.message()), HasSubstr("layer.0.expert.0 is damaged"));
}

// The bytes of two experts change places; sums alone would not notice if they went along.
TEST_P(PackedIn, M6_SwappedExpertsAreRefused) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  ASSERT_TRUE(Packed(dir / "hf", dir / "packed", GetParam()));
  fs::path file = dir / "packed/experts.000.weights";
  std::string bytes = ReadFileBytes(file);
  size_t region = bytes.size() / 6;
  std::string swapped =
      bytes.substr(region, region) + bytes.substr(0, region) + bytes.substr(2 * region);
  WriteFileBytes(file, swapped);
  auto swapped_model = PackedModel::Open(dir / "packed");
  ASSERT_TRUE(swapped_model.ok());
  EXPECT_THAT(std::string((*swapped_model)->MapExpert({0}, {0}).status().message()),
              HasSubstr("layer.0.expert.0 is damaged"));
  EXPECT_TRUE((*swapped_model)->MapExpert({0}, {2}).ok());

  // The same with the sums swapped in the manifest, which is signed anew: the names do not fit.
  json manifest = json::parse(ReadFileBytes(dir / "packed/manifest.json"));
  for (const char* key : {"crc32c", "sha256"}) {
    json* first = nullptr;
    for (json& r : manifest["regions"]) {
      if (r["name"] == "layer.0.expert.0") first = &r[key];
      if (r["name"] == "layer.0.expert.1") std::swap(*first, r[key]);
    }
  }
  std::string text = manifest.dump(1) + "\n";
  WriteFileBytes(dir / "packed/manifest.json", text);
  WriteFileBytes(dir / "packed/manifest.sha256", Sha256Hex(text) + "\n");
  auto model = PackedModel::Open(dir / "packed");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE((*model)->MapExpert({0}, {0}).ok());
  EXPECT_FALSE((*model)->MapExpert({0}, {1}).ok());
  EXPECT_FALSE((*model)->Verify(nullptr).ok());
}

// A manifest that was edited, with a digest that fits it.
TEST(PackedModel, RefusesEditedManifests) {
  TempDir dir;
  WriteCheckpoint(dir / "hf");
  ASSERT_TRUE(Packed(dir / "hf", dir / "packed", WeightFormat::kBF16));
  const json good = json::parse(ReadFileBytes(dir / "packed/manifest.json"));
  const std::vector<std::function<void(json&)>> edits = {
      [](json& m) { m["format_version"] = 2; },
      [](json& m) { m["arithmetic_version"] = 0; },
      [](json& m) { m["weights"] = "f32"; },
      [](json& m) { m["weights"] = 7; },
      [](json& m) { m["config"]["num_experts"] = 4096; },
      [](json& m) { m["config"]["hidden_size"] = 1 << 30; },
      [](json& m) { m["config"] = nullptr; },
      [](json& m) { m["rope"]["inv_freq_bits"].push_back(1); },
      [](json& m) { m["rope"].erase("inv_freq_bits"); },
      [](json& m) { m["regions"].erase(3); },
      [](json& m) { m["regions"][3]["offset"] = 0; },
      [](json& m) { m["regions"][3]["bytes"] = UINT64_MAX; },
      [](json& m) { m["regions"][3]["file"] = "../x"; },
      [](json& m) { m["regions"][3]["crc32c"] = -1; },
      [](json& m) { m["regions"] = "none"; },
      [](json& m) { m["files"][0]["name"] = "../../etc/passwd"; },
      [](json& m) { m["files"][0]["bytes"] = 1; },
      [](json& m) { m["files"] = 1; },
      [](json& m) { m["extra"] = true; },
      [](json& m) { m = json::array(); },
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    json manifest = good;
    edits[i](manifest);
    std::string text = manifest.dump(1) + "\n";
    WriteFileBytes(dir / "packed/manifest.json", text);
    WriteFileBytes(dir / "packed/manifest.sha256", Sha256Hex(text) + "\n");
    auto model = PackedModel::Open(dir / "packed");
    ASSERT_FALSE(model.ok()) << i;
    EXPECT_EQ(ReasonOf(model.status()), Reason::kModelRefused) << i << model.status();
  }
}

}  // namespace
}  // namespace bottega
