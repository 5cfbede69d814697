#include <algorithm>

#include "core/model/config.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using nlohmann::json;

json RopeJson(const RopeConfig& rope) {
  json object = {{"rope_theta", rope.theta}, {"rope_type", "default"}};
  if (rope.kind == RopeConfig::Kind::kYarn) {
    object["rope_type"] = "yarn";
    object["factor"] = rope.factor;
    object["original_max_position_embeddings"] = rope.original_max_positions;
    object["beta_fast"] = rope.beta_fast;
    object["beta_slow"] = rope.beta_slow;
    object["attention_factor"] = rope.attention_factor;
    object["truncate"] = rope.truncate;
  }
  return object;
}

}  // namespace

// Keys come out sorted and doubles in their shortest form that reads back to the same value, so
// equal configs give equal bytes: the manifest's digest depends on it.
std::string NormalisedConfigJson(const ModelConfig& config) {
  json root = {{"model_type", config.model_type},
               {"vocab_size", config.vocab_size},
               {"hidden_size", config.hidden_size},
               {"num_hidden_layers", config.num_layers},
               {"num_attention_heads", config.num_heads},
               {"num_key_value_heads", config.num_kv_heads},
               {"head_dim", config.head_dim},
               {"num_experts", config.num_experts},
               {"num_experts_per_tok", config.experts_per_token},
               {"moe_intermediate_size", config.expert_width},
               {"norm_topk_prob", config.norm_topk_prob},
               {"tie_word_embeddings", config.tied_head},
               {"rms_norm_eps", static_cast<double>(config.rms_norm_eps)},
               {"max_position_embeddings", config.max_positions},
               {"rope_parameters", RopeJson(config.rope)},
               {"eos_token_id", config.eos_ids}};
  if (!config.dtype.empty()) root["dtype"] = config.dtype;
  if (config.num_dense_layers() > 0) {
    root["intermediate_size"] = config.dense_width;
    json dense = json::array();
    for (int layer = 0; layer < config.num_layers; ++layer) {
      if (!config.is_moe_layer[static_cast<size_t>(layer)]) dense.push_back(layer);
    }
    root["mlp_only_layers"] = dense;
  }
  if (config.bos_id) root["bos_token_id"] = *config.bos_id;
  if (config.pad_id) root["pad_token_id"] = *config.pad_id;
  return root.dump();
}

std::string NormalisedGenerationJson(const ModelConfig& config) {
  const SamplingDefaults& s = config.sampling;
  json root = json::object();
  if (s.do_sample) root["do_sample"] = *s.do_sample;
  if (s.temperature) root["temperature"] = *s.temperature;
  if (s.top_p) root["top_p"] = *s.top_p;
  if (s.top_k) root["top_k"] = *s.top_k;
  if (s.min_p) root["min_p"] = *s.min_p;
  if (s.repetition_penalty) root["repetition_penalty"] = *s.repetition_penalty;
  return root.dump();
}

}  // namespace bottega
