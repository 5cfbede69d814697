#include "core/model/config_support.h"

#include <iterator>
#include <set>
#include <string>
#include <string_view>

namespace bottega {
namespace {

using nlohmann::json;

// A field that changes the maths in other models of this family, and the values of it that mean
// "as here". null is always neutral.
enum class Neutral { kFalse, kZero, kOne, kTrue, kOnlyNull };
struct UnsupportedField {
  std::string_view name;
  Neutral neutral;
};
constexpr UnsupportedField kUnsupported[] = {
    {"attention_bias", Neutral::kFalse},
    {"use_bias", Neutral::kFalse},
    {"qkv_bias", Neutral::kFalse},
    {"qkv_proj_bias", Neutral::kFalse},
    {"out_proj_bias", Neutral::kFalse},
    {"attention_out_bias", Neutral::kFalse},
    {"mlp_bias", Neutral::kFalse},
    {"lm_head_bias", Neutral::kFalse},
    {"router_bias", Neutral::kFalse},
    {"moe_router_enable_expert_bias", Neutral::kFalse},
    {"use_expert_bias", Neutral::kFalse},
    {"quantization_config", Neutral::kOnlyNull},
    {"compression_config", Neutral::kOnlyNull},
    {"clip_qkv", Neutral::kOnlyNull},
    {"swiglu_limit", Neutral::kOnlyNull},
    {"swiglu_alpha", Neutral::kOnlyNull},
    {"attn_logit_softcapping", Neutral::kOnlyNull},
    {"final_logit_softcapping", Neutral::kOnlyNull},
    {"query_pre_attn_scalar", Neutral::kOnlyNull},
    {"kv_lora_rank", Neutral::kOnlyNull},
    {"q_lora_rank", Neutral::kOnlyNull},
    {"attention_chunk_size", Neutral::kOnlyNull},
    {"use_qk_norm", Neutral::kTrue},
    {"qk_norm", Neutral::kTrue},
    {"qk_layernorm", Neutral::kTrue},
    {"use_attention_sinks", Neutral::kFalse},
    {"rope_interleave", Neutral::kFalse},
    {"partial_rotary_factor", Neutral::kOne},
    {"routed_scaling_factor", Neutral::kOne},
    {"moe_routed_scaling_factor", Neutral::kOne},
    {"attention_multiplier", Neutral::kOnlyNull},
    {"embedding_multiplier", Neutral::kOne},
    {"residual_multiplier", Neutral::kOne},
    {"logits_scaling", Neutral::kOne},
    {"logit_scale", Neutral::kOne},
    {"n_shared_experts", Neutral::kZero},
    {"num_shared_experts", Neutral::kZero},
    {"shared_expert_intermediate_size", Neutral::kZero},
    {"shared_intermediate_size", Neutral::kZero},
    {"first_k_dense_replace", Neutral::kZero},
    {"n_group", Neutral::kOne},
    {"topk_group", Neutral::kOne},
    {"is_encoder_decoder", Neutral::kFalse},
    {"add_cross_attention", Neutral::kFalse},
};

// Read below, or without a meaning for the forward pass (enggpt2.md 1): not reported as unknown.
constexpr std::string_view kKnown[] = {"model_type",
                                       "architectures",
                                       "auto_map",
                                       "transformers_version",
                                       "_name_or_path",
                                       "dtype",
                                       "torch_dtype",
                                       "vocab_size",
                                       "hidden_size",
                                       "num_hidden_layers",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "num_experts",
                                       "num_local_experts",
                                       "num_experts_per_tok",
                                       "moe_intermediate_size",
                                       "intermediate_size",
                                       "decoder_sparse_step",
                                       "mlp_only_layers",
                                       "norm_topk_prob",
                                       "hidden_act",
                                       "rms_norm_eps",
                                       "rope_theta",
                                       "rope_scaling",
                                       "rope_parameters",
                                       "max_position_embeddings",
                                       "original_max_position_embeddings",
                                       "sliding_window",
                                       "use_sliding_window",
                                       "max_window_layers",
                                       "layer_types",
                                       "tie_word_embeddings",
                                       "bos_token_id",
                                       "eos_token_id",
                                       "pad_token_id",
                                       "scoring_func",
                                       "use_cache",
                                       "output_router_logits",
                                       "router_aux_loss_coef",
                                       "initializer_range",
                                       "attention_dropout",
                                       "pretraining_tp",
                                       "output_attentions",
                                       "output_hidden_states",
                                       "return_dict"};

bool IsNeutral(const json& value, Neutral neutral) {
  switch (neutral) {
    case Neutral::kFalse:
      return value.is_boolean() && !value.get<bool>();
    case Neutral::kTrue:
      return value.is_boolean() && value.get<bool>();
    case Neutral::kZero:
      return value.is_number() && value.get<double>() == 0.0;
    case Neutral::kOne:
      return value.is_number() && value.get<double>() == 1.0;
    case Neutral::kOnlyNull:
      return false;
  }
  return false;
}

bool Truthy(const json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0.0;
  return !value.empty() && !(value.is_string() && value.get_ref<const std::string&>().empty());
}

// qwen3_moe's class switches the window off unless use_sliding_window says otherwise. The class of
// enggpt_moe is not public, so there a window without a clear "false" beside it is refused.
void RefuseSlidingWindow(JsonFields& fields, const ModelConfig& config) {
  bool unsaid = config.model_type == "enggpt_moe";
  if (fields.Has("sliding_window") && fields.Bool("use_sliding_window", unsaid)) {
    fields.Refuse("sliding_window", "is " + Shown(*fields.Find("sliding_window")) +
                                        " and in use; only full attention is implemented");
  }
}

}  // namespace

void RefuseUnsupported(const json& root, JsonFields& fields, ModelConfig& config) {
  for (const UnsupportedField& row : kUnsupported) {
    const json* value = fields.Find(row.name);
    if (value && !IsNeutral(*value, row.neutral)) {
      fields.Refuse(row.name, "is " + Shown(*value) + ", which is not implemented");
    }
  }
  if (fields.Text("hidden_act", "silu") != "silu") {
    fields.Refuse("hidden_act",
                  "is " + Shown(root["hidden_act"]) + "; only \"silu\" is implemented");
  }
  if (fields.Text("scoring_func", "softmax") != "softmax") {
    fields.Refuse("scoring_func",
                  "is " + Shown(root["scoring_func"]) + "; only \"softmax\" is implemented");
  }
  if (const json* types = fields.Find("layer_types")) {
    for (const json& type : *types) {
      if (type != "full_attention") {
        fields.Refuse("layer_types",
                      "has " + Shown(type) + "; only \"full_attention\" is implemented");
      }
    }
  }
  RefuseSlidingWindow(fields, config);
  std::set<std::string_view> known(std::begin(kKnown), std::end(kKnown));
  for (const UnsupportedField& row : kUnsupported) known.insert(row.name);
  for (const auto& [name, value] : root.items()) {
    if (!known.count(name) && Truthy(value)) {
      config.unknown_fields.push_back(name + " = " + Shown(value));
    }
  }
}

}  // namespace bottega
