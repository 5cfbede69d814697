#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bottega {

// Rotary position embedding over all of head_dim, half-split pairs (i, i + head_dim/2).
struct RopeConfig {
  enum class Kind { kDefault, kYarn };
  Kind kind = Kind::kDefault;
  double theta = 10'000.0;

  // YaRN only.
  double factor = 1.0;
  double original_max_positions = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 1.0;  // resolved: given, or from factor, mscale and mscale_all_dim
  bool truncate = true;           // the correction range is rounded outward to whole dimensions
};

// What a head is turned by: angle(position, i) = position * inv_freq[i], in f32; cos and sin are
// multiplied by attention_scaling. Computed once when a model is packed and stored, so that no
// machine's libm can change an answer later.
struct RopeTable {
  std::vector<float> inv_freq;  // [head_dim / 2]
  float attention_scaling = 1.0f;
};

// generation_config.json, as far as it says anything. A request's own value wins.
struct SamplingDefaults {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

// A model as data: everything the forward pass depends on besides the weights. Values are checked:
// positive, within core/base/limits.h, consistent with each other.
struct ModelConfig {
  std::string model_type;  // "enggpt_moe" or "qwen3_moe": one graph
  std::string dtype;       // what the file declares; the tensors' own types decide

  int vocab_size = 0;
  int hidden_size = 0;
  int num_layers = 0;
  int num_heads = 0;  // query heads; head h reads KV head h / (num_heads / num_kv_heads)
  int num_kv_heads = 0;
  int head_dim = 0;  // a multiple of 8; not hidden_size / num_heads in general
  int num_experts = 0;
  int experts_per_token = 0;
  int expert_width = 0;               // moe_intermediate_size
  int dense_width = 0;                // intermediate_size, of the dense layers; 0 if there are none
  std::vector<uint8_t> is_moe_layer;  // [num_layers] 1: experts, 0: one dense gated MLP

  bool norm_topk_prob = false;  // routing weights divided by their sum
  bool tied_head = false;       // lm_head is the embedding
  float rms_norm_eps = 1e-6f;
  RopeConfig rope;
  int64_t max_positions =
      0;  // context the model offers: max_position_embeddings, or what YaRN extends it to

  std::vector<int32_t> eos_ids;  // union of both files, ascending
  std::optional<int32_t> bos_id;
  std::optional<int32_t> pad_id;
  SamplingDefaults sampling;

  std::vector<std::string>
      unknown_fields;              // set, not known to change the maths: shown by `inspect`
  std::vector<std::string> notes;  // decisions a reader may want to know of

  int q_dim() const { return num_heads * head_dim; }
  int kv_dim() const { return num_kv_heads * head_dim; }
  int num_moe_layers() const;
  int num_dense_layers() const { return num_layers - num_moe_layers(); }
};

// Reads the two files of a Hugging Face directory (transformers 4 and 5 forms).
// `generation_config_json` is empty where the directory has none. Anything set that the graph does
// not implement is refused by name, so that no model is ever served almost right.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json);

// The same content as two texts that ParseModelConfig reads back to an equal value: what a packed
// model keeps.
std::string NormalisedConfigJson(const ModelConfig& config);
std::string NormalisedGenerationJson(const ModelConfig& config);

// As transformers (5.x) computes it in float32: each step in double, rounded where torch rounds.
RopeTable MakeRopeTable(const ModelConfig& config);

}  // namespace bottega
