#include <cstdio>
#include <cstdlib>

#include "core/model/config.h"
#include "tests/fuzz/fuzz_target.h"

namespace bottega {
namespace {

constexpr char kShapes[] =
    R"("vocab_size":131084,"hidden_size":2880,"num_hidden_layers":24,"num_attention_heads":32,)"
    R"("num_key_value_heads":4,"head_dim":128,"num_experts_per_tok":8,"moe_intermediate_size":1080,)"
    R"("intermediate_size":8640,"max_position_embeddings":40960,"eos_token_id":[2,3],)";

std::vector<std::string> Seeds() {
  return {
      std::string("{\"model_type\":\"enggpt_moe\",\"num_experts\":64,") + kShapes +
          R"("rope_theta":1e6,"rope_scaling":null,"sliding_window":null,"mlp_only_layers":[],)"
          R"("tie_word_embeddings":false,"norm_topk_prob":true,"rms_norm_eps":1e-06})",
      std::string("{\"model_type\":\"qwen3_moe\",\"num_local_experts\":128,") + kShapes +
          R"("rope_parameters":{"rope_type":"yarn","rope_theta":10000,"factor":4.0,)"
          R"("original_max_position_embeddings":8192,"beta_fast":32,"mscale":0.7,"mscale_all_dim":1,)"
          R"("truncate":false},"mlp_only_layers":[1,3],"decoder_sparse_step":2})"};
}

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "accepted a config whose %s\n", what);
  std::abort();
}

bool Run(std::span<const std::byte> input) {
  std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  (void)ParseModelConfig(Seeds()[0], text);  // as generation_config.json
  auto config = ParseModelConfig(text, "");
  if (!config.ok()) return false;
  Require(config->num_heads % config->num_kv_heads == 0, "heads do not divide");
  Require(config->experts_per_token <= config->num_experts,
          "tokens want more experts than there are");
  Require(config->num_moe_layers() > 0, "layers have no experts");
  Require(config->is_moe_layer.size() == static_cast<size_t>(config->num_layers), "layers differ");
  for (float frequency : MakeRopeTable(*config).inv_freq) {
    Require(frequency >= 0.0f && frequency <= 1.0f, "rotary frequencies are not in 0..1");
  }
  auto again = ParseModelConfig(NormalisedConfigJson(*config), NormalisedGenerationJson(*config));
  Require(again.ok() && NormalisedConfigJson(*again) == NormalisedConfigJson(*config),
          "normalised form is another config");
  return true;
}

}  // namespace

FuzzTarget ModelConfigTarget() { return {"model_config", Seeds, Run}; }

}  // namespace bottega
