#include "core/model/synthetic_shape.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/config.h"
#include "core/model/model_file.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What the shapes have in common.
json Shape(std::initializer_list<std::pair<const char*, json>> own) {
  json config = {{"dtype", "bfloat16"},         {"num_attention_heads", 32},
                 {"num_key_value_heads", 4},    {"head_dim", 128},
                 {"num_experts_per_tok", 8},    {"norm_topk_prob", true},
                 {"hidden_act", "silu"},        {"rms_norm_eps", 1e-6},
                 {"rope_theta", 1e6},           {"max_position_embeddings", 40960},
                 {"tie_word_embeddings", false}};
  for (const auto& [name, value] : own) config[name] = value;
  return config;
}

json EngGpt2() {
  return Shape({{"architectures", json::array({"EngGPTMoeForCausalLM"})},
                {"model_type", "enggpt_moe"},
                {"vocab_size", 131084},
                {"hidden_size", 2880},
                {"num_hidden_layers", 24},
                {"num_experts", 64},
                {"moe_intermediate_size", 1080},
                {"bos_token_id", 1},
                {"eos_token_id", 131073},
                {"pad_token_id", 131083}});
}

json Qwen3A3B() {
  return Shape({{"architectures", json::array({"Qwen3MoeForCausalLM"})},
                {"model_type", "qwen3_moe"},
                {"vocab_size", 151936},
                {"hidden_size", 2048},
                {"num_hidden_layers", 48},
                {"num_experts", 128},
                {"moe_intermediate_size", 768},
                {"bos_token_id", 151643},
                {"eos_token_id", 151645}});
}

absl::StatusOr<json> Find(const std::string& shape) {
  if (shape == "enggpt2") return EngGpt2();
  if (shape == "qwen3-30b-a3b") return Qwen3A3B();
  if (!shape.ends_with(".json")) {
    return MakeError(Reason::kInvalidValue,
                     absl::StrCat("no shape \"", shape, "\"; there are ",
                                  std::string(kSyntheticShapes), ", and any config.json"));
  }
  const fs::path path = fs::absolute(shape);
  const std::string name = path.filename().string();
  ASSIGN_OR_RETURN(const std::string text,
                   ReadModelFile(path.parent_path(), name, limits::kConfigBytesMax));
  return ParseCheckedJson(text, name, limits::kConfigBytesMax);
}

// What speaks of single layers has to be cut along.
void Cut(json& config, int64_t layers) {
  config["num_hidden_layers"] = layers;
  if (auto types = config.find("layer_types"); types != config.end() && types->is_array()) {
    while (types->size() > static_cast<size_t>(layers)) types->erase(types->size() - 1);
  }
  if (auto dense = config.find("mlp_only_layers"); dense != config.end() && dense->is_array()) {
    json left = json::array();
    for (const json& layer : *dense) {
      if (layer < layers) left.push_back(layer);
    }
    *dense = left;
  }
}

}  // namespace

absl::StatusOr<std::string> SyntheticShape(const std::string& shape,
                                           std::optional<int64_t> layers) {
  ASSIGN_OR_RETURN(json config, Find(shape));
  ASSIGN_OR_RETURN(const ModelConfig whole, ParseModelConfig(config.dump(), ""));
  if (layers.has_value()) {
    if (*layers < 1 || *layers > whole.num_layers) {
      return MakeError(Reason::kInvalidValue,
                       absl::StrCat("layers is ", *layers, "; of the shape ", shape, " it can be ",
                                    "1 to ", whole.num_layers));
    }
    Cut(config, *layers);
  }
  return config.dump(1) + "\n";
}

}  // namespace bottega
