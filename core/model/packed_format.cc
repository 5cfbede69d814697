#include "core/model/packed_format.h"

#include <bit>
#include <cstdio>
#include <numeric>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/kernels/matmul.h"
#include "core/kernels/quantised.h"
#include "core/kernels/swiglu.h"
#include "core/model/checked_json.h"
#include "core/model/refusal.h"
#include "core/model/tensor_set.h"

namespace bottega {
namespace {

using nlohmann::json;

constexpr char kAttentionFile[] = "attention.weights";
constexpr char kManifestFile[] = "manifest.json";

std::string ExpertsFile(int layer) {
  char name[40];
  std::snprintf(name, sizeof(name), "experts.%03d.weights", layer);
  return name;
}

// Appends regions to the files in the order they are planned in.
class Planner {
 public:
  explicit Planner(WeightFormat weights) : weights_(weights) {}

  void Begin(std::string name, const std::string& file) {
    if (regions_.empty() || regions_.back().file != file) file_end_ = 0;
    regions_.push_back({std::move(name), file, file_end_, 0, {}});
  }
  void Add(Section::Kind kind, std::vector<std::string> sources, std::vector<int64_t> rows,
           int64_t k) {
    Region& region = regions_.back();
    uint64_t offset = RoundUp(region.bytes, kSectionAlignment);
    Section section{kind, std::move(sources), std::move(rows), k, offset, 0};
    section.bytes = SectionBytes(section);
    region.bytes = offset + section.bytes;
    region.sections.push_back(std::move(section));
    file_end_ = RoundUp(region.offset + region.bytes, kRegionAlignment);
  }
  void Vector(std::string source, int64_t k) {
    Add(Section::Kind::kVector, {std::move(source)}, {1}, k);
  }
  void GatedMlp(std::string gate, std::string up, std::string down, int64_t width, int64_t hidden) {
    Add(Section::Kind::kGateUp, {std::move(gate), std::move(up)}, {width, width}, hidden);
    Add(Section::Kind::kTiles, {std::move(down)}, {hidden}, width);
  }
  std::vector<Region> Take() { return std::move(regions_); }

 private:
  uint64_t SectionBytes(const Section& section) const {
    const int64_t rows = std::accumulate(section.rows.begin(), section.rows.end(), int64_t{0});
    const bool quantised = IsQuantised(weights_);
    switch (section.kind) {
      case Section::Kind::kRows:
        if (quantised) {
          return static_cast<uint64_t>(rows) * QuantisedTableRowBytes(weights_, section.k);
        }
        return static_cast<uint64_t>(rows * section.k) * SizeOf(ElementOf(weights_));
      case Section::Kind::kVector:
        return static_cast<uint64_t>(section.k) * sizeof(float);
      case Section::Kind::kTiles:
        if (quantised) {
          return QuantisedShape{.format = weights_, .n = rows, .k = section.k}.bytes();
        }
        return PackedBytes(ElementOf(weights_), rows, section.k);
      case Section::Kind::kTilesF32:
        return PackedBytes(DType::kF32, rows, section.k);
      case Section::Kind::kGateUp:
        if (quantised) return GateUpShape(weights_, section.rows[0], section.k).bytes();
        return GateUpPackedBytes(ElementOf(weights_), section.rows[0], section.k);
    }
    CHECK(false);
    return 0;
  }

  WeightFormat weights_;
  std::vector<Region> regions_;
  uint64_t file_end_ = 0;
};

void PlanLayer(Planner& plan, const ModelConfig& c, int layer) {
  using tensor_name::OfLayer;
  const int64_t hidden = c.hidden_size;
  plan.Begin(LayerRegionName(layer), kAttentionFile);
  plan.Vector(OfLayer(layer, "input_layernorm"), hidden);
  plan.Vector(OfLayer(layer, "self_attn.q_norm"), c.head_dim);
  plan.Vector(OfLayer(layer, "self_attn.k_norm"), c.head_dim);
  plan.Vector(OfLayer(layer, "post_attention_layernorm"), hidden);
  plan.Add(Section::Kind::kTiles,
           {OfLayer(layer, "self_attn.q_proj"), OfLayer(layer, "self_attn.k_proj"),
            OfLayer(layer, "self_attn.v_proj")},
           {c.q_dim(), c.kv_dim(), c.kv_dim()}, hidden);
  plan.Add(Section::Kind::kTiles, {OfLayer(layer, "self_attn.o_proj")}, {hidden}, c.q_dim());
  if (c.is_moe_layer[static_cast<size_t>(layer)]) {
    plan.Add(Section::Kind::kTilesF32, {OfLayer(layer, "mlp.gate")}, {c.num_experts}, hidden);
  } else {
    plan.GatedMlp(OfLayer(layer, "mlp.gate_proj"), OfLayer(layer, "mlp.up_proj"),
                  OfLayer(layer, "mlp.down_proj"), c.dense_width, hidden);
  }
}

json FilesJson(const std::vector<FileSum>& files) {
  json list = json::array();
  for (const FileSum& file : files) {
    list.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  return list;
}

std::string Hex32(uint32_t value) {
  char text[9];
  std::snprintf(text, sizeof(text), "%08x", value);
  return text;
}

// Every reader below yields a default for what is missing or of another type: ParseManifest
// compares the whole with what ManifestJson writes, so whatever was not as written is refused
// there.
template <class T>
T Get(const json& object, const char* key) {
  auto it = object.is_object() ? object.find(key) : object.end();
  if (!object.is_object() || it == object.end()) return T{};
  if constexpr (std::is_same_v<T, std::string>) {
    return it->is_string() ? it->template get<T>() : T{};
  } else if constexpr (std::is_same_v<T, json>) {
    return *it;
  } else {
    return it->is_number_unsigned() ? it->template get<T>() : T{};
  }
}

std::vector<FileSum> ReadFiles(const json& list) {
  std::vector<FileSum> files;
  for (const json& item : list) {
    files.push_back({Get<std::string>(item, "name"), Get<uint64_t>(item, "bytes"),
                     Get<std::string>(item, "sha256")});
  }
  return files;
}

RopeTable ReadRopeTable(const json& object) {
  RopeTable rope;
  rope.attention_scaling = std::bit_cast<float>(Get<uint32_t>(object, "attention_scaling_bits"));
  for (const json& bits : Get<json>(object, "inv_freq_bits")) {
    if (bits.is_number_unsigned())
      rope.inv_freq.push_back(std::bit_cast<float>(bits.get<uint32_t>()));
  }
  return rope;
}

}  // namespace

std::string NumericsBase(WeightFormat weights) {
  return absl::StrCat("v", kArithmeticVersion, "-", std::string(Name(weights)));
}

std::string LayerRegionName(int layer) { return "layer." + std::to_string(layer); }

std::string ExpertRegionName(LayerId layer, ExpertId expert) {
  return "layer." + std::to_string(layer.value) + ".expert." + std::to_string(expert.value);
}

absl::Status CheckWeightFormat(const ModelConfig& c, WeightFormat weights) {
  if (!IsQuantised(weights)) return absl::OkStatus();
  const std::pair<const char*, int64_t> inputs[] = {
      {"hidden_size", c.hidden_size},
      {"num_attention_heads * head_dim", c.q_dim()},
      {"moe_intermediate_size", c.num_moe_layers() == 0 ? 0 : c.expert_width},
      {"intermediate_size", c.num_dense_layers() == 0 ? 0 : c.dense_width}};
  for (const auto& [name, k] : inputs) {
    if (k % 8 == 0) continue;
    return RefuseModel("weights as ", Name(weights), " need ", name,
                       " to be a multiple of 8; it is ", k, "; choose bf16");
  }
  return absl::OkStatus();
}

std::vector<Region> PlanRegions(const ModelConfig& c, WeightFormat weights) {
  using tensor_name::OfExpert;
  Planner plan(weights);
  const int64_t hidden = c.hidden_size;
  plan.Begin("embedding", kAttentionFile);
  plan.Add(Section::Kind::kRows, {tensor_name::kEmbedding}, {c.vocab_size}, hidden);
  for (int layer = 0; layer < c.num_layers; ++layer) PlanLayer(plan, c, layer);
  plan.Begin("final_norm", kAttentionFile);
  plan.Vector(tensor_name::kFinalNorm, hidden);
  // A tied head has its own packed copy: the embedding is read by rows, the head by tiles.
  plan.Begin("lm_head", kAttentionFile);
  plan.Add(Section::Kind::kTiles, {c.tied_head ? tensor_name::kEmbedding : tensor_name::kHead},
           {c.vocab_size}, hidden);
  for (int layer = 0; layer < c.num_layers; ++layer) {
    if (!c.is_moe_layer[static_cast<size_t>(layer)]) continue;
    for (int expert = 0; expert < c.num_experts; ++expert) {
      plan.Begin(ExpertRegionName({static_cast<uint16_t>(layer)}, {static_cast<uint16_t>(expert)}),
                 ExpertsFile(layer));
      plan.GatedMlp(OfExpert(layer, expert, "gate_proj"), OfExpert(layer, expert, "up_proj"),
                    OfExpert(layer, expert, "down_proj"), c.expert_width, hidden);
    }
  }
  return plan.Take();
}

std::string ManifestJson(const Manifest& manifest) {
  std::vector<Region> plan = PlanRegions(manifest.config, manifest.weights);
  CHECK_EQ(plan.size(), manifest.sums.size());
  json regions = json::array();
  for (size_t i = 0; i < plan.size(); ++i) {
    regions.push_back({{"name", plan[i].name},
                       {"file", plan[i].file},
                       {"offset", plan[i].offset},
                       {"bytes", plan[i].bytes},
                       {"crc32c", Hex32(manifest.sums[i].crc32c)},
                       {"sha256", manifest.sums[i].sha256}});
  }
  json inv_freq = json::array();
  for (float value : manifest.rope.inv_freq) inv_freq.push_back(std::bit_cast<uint32_t>(value));
  json root = {
      {"format", "bottega packed model"},
      {"format_version", kPackedFormatVersion},
      {"arithmetic_version", kArithmeticVersion},
      {"numerics_base", NumericsBase(manifest.weights)},
      {"weights", std::string(Name(manifest.weights))},
      {"config", json::parse(NormalisedConfigJson(manifest.config))},
      {"generation", json::parse(NormalisedGenerationJson(manifest.config))},
      {"rope",
       {{"attention_scaling_bits", std::bit_cast<uint32_t>(manifest.rope.attention_scaling)},
        {"inv_freq_bits", inv_freq}}},
      {"files", FilesJson(manifest.files)},
      {"sources", FilesJson(manifest.sources)},
      {"regions", regions}};
  return root.dump(1) + "\n";
}

absl::StatusOr<Manifest> ParseManifest(std::string_view text) {
  ASSIGN_OR_RETURN(json root, ParseCheckedJson(text, kManifestFile, limits::kManifestBytesMax));
  if (Get<uint64_t>(root, "format_version") != kPackedFormatVersion ||
      Get<uint64_t>(root, "arithmetic_version") != kArithmeticVersion) {
    return RefuseModel(kManifestFile, ": packed by another version of this program (format ",
                       Get<uint64_t>(root, "format_version"), ", arithmetic ",
                       Get<uint64_t>(root, "arithmetic_version"), "; here ", kPackedFormatVersion,
                       ", ", kArithmeticVersion, "); pack the model again");
  }
  Manifest manifest;
  auto weights = ParseWeightFormat(Get<std::string>(root, "weights"));
  if (!weights.ok()) return RefuseModel(kManifestFile, ": unknown weight format");
  manifest.weights = *weights;
  auto config =
      ParseModelConfig(Get<json>(root, "config").dump(), Get<json>(root, "generation").dump());
  if (!config.ok()) return RefuseModel(kManifestFile, ": ", config.status().message());
  manifest.config = *std::move(config);
  RETURN_IF_ERROR(CheckWeightFormat(manifest.config, manifest.weights));
  manifest.rope = ReadRopeTable(Get<json>(root, "rope"));
  manifest.files = ReadFiles(Get<json>(root, "files"));
  manifest.sources = ReadFiles(Get<json>(root, "sources"));

  const json regions = Get<json>(root, "regions");
  std::vector<Region> plan = PlanRegions(manifest.config, manifest.weights);
  if (regions.size() != plan.size()) {
    return RefuseModel(kManifestFile, ": ", regions.size(), " regions, the config asks for ",
                       plan.size());
  }
  for (const json& region : regions) {
    std::string crc = Get<std::string>(region, "crc32c");
    manifest.sums.push_back({static_cast<uint32_t>(std::strtoul(crc.c_str(), nullptr, 16)),
                             Get<std::string>(region, "sha256")});
  }
  const size_t pairs = static_cast<size_t>(manifest.config.head_dim / 2);
  if (manifest.rope.inv_freq.size() != pairs || ManifestJson(manifest) != text) {
    return RefuseModel(kManifestFile, ": not as this program writes it");
  }
  return manifest;
}

}  // namespace bottega
