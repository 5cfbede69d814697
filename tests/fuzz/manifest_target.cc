#include "core/model/packed_format.h"
#include "tests/fuzz/fuzz_target.h"

namespace bottega {
namespace {

std::vector<std::string> Seeds() {
  Manifest manifest;
  manifest.config = *ParseModelConfig(
      R"({"model_type":"qwen3_moe","vocab_size":37,"hidden_size":40,"num_hidden_layers":2,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"head_dim":24,"num_experts":3,)"
      R"("num_experts_per_tok":2,"moe_intermediate_size":24,"max_position_embeddings":128})",
      "");
  manifest.rope = MakeRopeTable(manifest.config);
  manifest.files = {{"config.json", 10, std::string(64, 'a')}};
  manifest.sources = {{"model.safetensors", 1000, std::string(64, 'b')}};
  for (const Region& region : PlanRegions(manifest.config, manifest.weights)) {
    manifest.sums.push_back({static_cast<uint32_t>(region.offset), std::string(64, 'c')});
  }
  return {ManifestJson(manifest)};
}

// An accepted manifest is, by ParseManifest's own last check, one that ManifestJson writes; what is
// left to see here is that nothing on the way there trusts the text.
bool Run(std::span<const std::byte> input) {
  return ParseManifest({reinterpret_cast<const char*>(input.data()), input.size()}).ok();
}

}  // namespace

FuzzTarget ManifestTarget() { return {"manifest", Seeds, Run}; }

}  // namespace bottega
