#include "core/model/config.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/config_support.h"
#include "core/model/json_fields.h"
#include "core/model/refusal.h"

namespace bottega {
namespace {

using nlohmann::json;

constexpr std::string_view kConfigFile = "config.json";
constexpr std::string_view kGenerationFile = "generation_config.json";

// transformers 4 writes num_experts, 5 writes num_local_experts for the same thing.
void ReadExperts(JsonFields& fields, ModelConfig& config) {
  bool older = fields.Has("num_experts");
  std::string_view name = older ? "num_experts" : "num_local_experts";
  config.num_experts = static_cast<int>(fields.Int(name, 1, limits::kExpertsMax));
  if (older && fields.Int("num_local_experts", 0, limits::kExpertsMax, config.num_experts) !=
                   config.num_experts) {
    fields.Refuse("num_local_experts", "contradicts num_experts");
  }
  config.experts_per_token =
      static_cast<int>(fields.Int("num_experts_per_tok", 1, config.num_experts));
  config.expert_width =
      static_cast<int>(fields.Int("moe_intermediate_size", 1, limits::kFfnWidthMax));
  config.norm_topk_prob = fields.Bool("norm_topk_prob", false);  // the class's default

  int64_t step = fields.Int("decoder_sparse_step", 1, limits::kLayersMax, 1);
  config.is_moe_layer.resize(static_cast<size_t>(config.num_layers));
  for (int layer = 0; layer < config.num_layers; ++layer) {
    config.is_moe_layer[static_cast<size_t>(layer)] = (layer + 1) % step == 0;
  }
  for (int64_t layer : fields.Ints("mlp_only_layers", 0, config.num_layers - 1)) {
    config.is_moe_layer[static_cast<size_t>(layer)] = 0;
  }
  if (int64_t{3} * config.num_moe_layers() * config.num_experts > int64_t{limits::kTensorsMax}) {
    fields.Refuse(name, "times layers asks for more than " + std::to_string(limits::kTensorsMax) +
                            " tensors");
  }
  if (config.num_moe_layers() == 0)
    fields.Refuse("mlp_only_layers", "leaves no layer with experts");
  if (config.num_dense_layers() > 0) {
    config.dense_width = static_cast<int>(fields.Int("intermediate_size", 1, limits::kFfnWidthMax));
  }
}

void ReadShapes(JsonFields& fields, ModelConfig& config) {
  auto read = [&](std::string_view name, int64_t max) {
    return static_cast<int>(fields.Int(name, 1, max));
  };
  config.vocab_size = read("vocab_size", limits::kVocabMax);
  config.hidden_size = read("hidden_size", limits::kHiddenMax);
  config.num_layers = read("num_hidden_layers", limits::kLayersMax);
  config.num_heads = read("num_attention_heads", limits::kHeadsMax);
  config.num_kv_heads = config.num_heads;
  if (fields.Has("num_key_value_heads")) {
    config.num_kv_heads = read("num_key_value_heads", limits::kHeadsMax);
  }
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.Refuse("num_key_value_heads", "does not divide num_attention_heads");
  }
  config.head_dim = fields.Has("head_dim") ? read("head_dim", limits::kHeadDimMax)
                                           : config.hidden_size / config.num_heads;
  if (config.head_dim < 8 || config.head_dim % 8 != 0 || config.head_dim > limits::kHeadDimMax) {
    fields.Refuse("head_dim",
                  "is " + std::to_string(config.head_dim) + "; expected a multiple of 8");
  }
  config.max_positions = fields.Int("max_position_embeddings", 1, limits::kPositionsMax);
  config.rms_norm_eps = static_cast<float>(fields.Number("rms_norm_eps", 0.0, 1.0, 1e-6));
  config.tied_head = fields.Bool("tie_word_embeddings", false);
}

void ReadYarn(JsonFields& top, JsonFields& rope, ModelConfig& config) {
  RopeConfig& r = config.rope;
  double max_positions = static_cast<double>(config.max_positions);
  r.original_max_positions =
      rope.Number("original_max_position_embeddings", 1, limits::kPositionsMax, max_positions);
  // transformers prefers the outer one.
  r.original_max_positions = top.Number("original_max_position_embeddings", 1,
                                        limits::kPositionsMax, r.original_max_positions);
  r.factor =
      rope.Number("factor", 1.0, 4096.0, std::max(1.0, max_positions / r.original_max_positions));
  r.beta_fast = rope.Number("beta_fast", 0.0, 1e6, 32.0);
  r.beta_slow = rope.Number("beta_slow", 0.0, 1e6, 1.0);
  if (r.beta_fast == 0.0) r.beta_fast = 32.0;
  if (r.beta_slow == 0.0) r.beta_slow = 1.0;
  double mscale = rope.Number("mscale", 0.0, 100.0, 0.0);
  double mscale_all_dim = rope.Number("mscale_all_dim", 0.0, 100.0, 0.0);
  auto scale = [&](double m) { return r.factor <= 1.0 ? 1.0 : 0.1 * m * std::log(r.factor) + 1.0; };
  double inferred =
      mscale != 0.0 && mscale_all_dim != 0.0 ? scale(mscale) / scale(mscale_all_dim) : scale(1.0);
  r.attention_factor = rope.Number("attention_factor", 1e-6, 1e6, inferred);
  r.truncate = rope.Bool("truncate", true);

  double extended = std::floor(r.factor * r.original_max_positions);
  if (extended != max_positions) {
    config.notes.push_back("YaRN: factor x original_max_position_embeddings = " +
                           std::to_string(static_cast<int64_t>(extended)) +
                           ", max_position_embeddings = " + std::to_string(config.max_positions) +
                           "; the context is the larger, the factor is used as given");
  }
  config.max_positions = std::min<int64_t>(
      limits::kPositionsMax, std::max(config.max_positions, static_cast<int64_t>(extended)));
}

// transformers 5: rope_parameters holds everything. 4: rope_theta beside rope_scaling, whose type
// is under "rope_type" or "type". rope_scaling wins where both are set.
absl::Status ReadRope(JsonFields& fields, ModelConfig& config) {
  const json* object = fields.Find("rope_scaling");
  std::string_view name = "rope_scaling";
  if (!object || object->empty()) {
    object = fields.Find("rope_parameters");
    name = "rope_parameters";
  }
  double outer_theta = fields.Number("rope_theta", 1.5, 1e12, 10'000.0);
  static const json kNone = json::object();
  if (!object) object = &kNone;
  std::string file = std::string(kConfigFile) + ": " + std::string(name);
  if (!object->is_object()) return RefuseModel(file, " is not an object");
  JsonFields rope(*object, file);
  config.rope.theta = rope.Number("rope_theta", 1.5, 1e12, outer_theta);
  if (rope.Number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) {
    rope.Refuse("partial_rotary_factor", "other than 1 is not implemented");
  }
  std::string type = rope.Text("rope_type", rope.Text("type", "default"));
  if (type != "default" && type != "yarn") {
    rope.Refuse("rope_type",
                "is " + Shown(json(type)) + "; \"default\" and \"yarn\" are implemented");
  }
  const std::set<std::string_view> common = {"rope_type", "type", "rope_theta",
                                             "partial_rotary_factor"};
  const std::set<std::string_view> yarn = {"factor",           "original_max_position_embeddings",
                                           "beta_fast",        "beta_slow",
                                           "mscale",           "mscale_all_dim",
                                           "attention_factor", "truncate",
                                           "finetuned"};
  for (const auto& [key, value] : object->items()) {
    if (value.is_null() || common.count(key)) continue;
    if (!yarn.count(key)) rope.Refuse(key, "is not implemented");
    if (type == "default") config.notes.push_back(file + "." + key + " has no effect without YaRN");
  }
  if (type == "yarn" && rope.status().ok() && fields.status().ok()) {
    config.rope.kind = RopeConfig::Kind::kYarn;
    ReadYarn(fields, rope, config);
  }
  return rope.status();
}

// Stop ids are the union of both files; bos and pad are only for show.
void ReadTokenIds(JsonFields& fields, JsonFields& generation, ModelConfig& config) {
  std::set<int32_t> eos;
  for (JsonFields* source : {&fields, &generation}) {
    for (int64_t id : source->Ints("eos_token_id", 0, config.vocab_size - 1)) {
      eos.insert(static_cast<int32_t>(id));
    }
  }
  config.eos_ids.assign(eos.begin(), eos.end());
  if (eos.empty()) config.notes.push_back("no eos_token_id: answers end at their length only");
  auto optional_id = [&](std::string_view name) -> std::optional<int32_t> {
    const json* value = fields.Find(name);
    if (!value) value = generation.Find(name);
    if (!value || !value->is_number_integer()) return std::nullopt;
    int64_t id = value->get<int64_t>();
    if (id < 0 || id >= config.vocab_size) return std::nullopt;
    return static_cast<int32_t>(id);
  };
  config.bos_id = optional_id("bos_token_id");
  config.pad_id = optional_id("pad_token_id");
}

void ReadSampling(JsonFields& generation, SamplingDefaults& sampling) {
  auto number = [&](std::string_view name, double lo, double hi) -> std::optional<double> {
    if (!generation.Has(name)) return std::nullopt;
    return generation.Number(name, lo, hi);
  };
  if (generation.Has("do_sample")) sampling.do_sample = generation.Bool("do_sample", false);
  sampling.temperature = number("temperature", 0.0, 100.0);
  sampling.top_p = number("top_p", 0.0, 1.0);
  sampling.min_p = number("min_p", 0.0, 1.0);
  sampling.repetition_penalty = number("repetition_penalty", 0.0, 10.0);
  if (generation.Has("top_k")) {
    sampling.top_k = static_cast<int>(generation.Int("top_k", -1, limits::kVocabMax));
  }
}

}  // namespace

int ModelConfig::num_moe_layers() const {
  return static_cast<int>(std::count(is_moe_layer.begin(), is_moe_layer.end(), 1));
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json) {
  ASSIGN_OR_RETURN(json root, ParseCheckedJson(config_json, kConfigFile, limits::kConfigBytesMax));
  json generation_root = json::object();
  if (!generation_config_json.empty()) {
    ASSIGN_OR_RETURN(generation_root, ParseCheckedJson(generation_config_json, kGenerationFile,
                                                       limits::kConfigBytesMax));
  }
  JsonFields fields(root, kConfigFile);
  JsonFields generation(generation_root, kGenerationFile);
  ModelConfig config;
  config.model_type = fields.Text("model_type", "");
  if (config.model_type != "enggpt_moe" && config.model_type != "qwen3_moe") {
    return RefuseModel(kConfigFile, ": model_type is ",
                       Shown(root.contains("model_type") ? root["model_type"] : json()),
                       "; \"enggpt_moe\" and \"qwen3_moe\" are implemented");
  }
  config.dtype = fields.Text("dtype", fields.Text("torch_dtype", ""));
  if (config.dtype == "float16") fields.Refuse("dtype", "float16 is not implemented");

  RefuseUnsupported(root, fields, config);
  RETURN_IF_ERROR(fields.status());
  ReadShapes(fields, config);
  RETURN_IF_ERROR(fields.status());
  ReadExperts(fields, config);
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(ReadRope(fields, config));
  ReadTokenIds(fields, generation, config);
  ReadSampling(generation, config.sampling);
  RETURN_IF_ERROR(fields.status());
  RETURN_IF_ERROR(generation.status());
  return config;
}

}  // namespace bottega
