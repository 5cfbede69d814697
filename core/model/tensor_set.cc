#include "core/model/tensor_set.h"

namespace bottega {
namespace tensor_name {

std::string OfLayer(int layer, const std::string& part) {
  return "model.layers." + std::to_string(layer) + "." + part + ".weight";
}

std::string OfExpert(int layer, int expert, const std::string& part) {
  return OfLayer(layer, "mlp.experts." + std::to_string(expert) + "." + part);
}

}  // namespace tensor_name

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& c) {
  using tensor_name::OfExpert;
  using tensor_name::OfLayer;
  const int64_t hidden = c.hidden_size;
  std::vector<ExpectedTensor> all;
  auto add = [&all](std::string name, std::vector<int64_t> shape) {
    all.push_back({std::move(name), std::move(shape)});
  };
  add(tensor_name::kEmbedding, {c.vocab_size, hidden});
  for (int layer = 0; layer < c.num_layers; ++layer) {
    add(OfLayer(layer, "input_layernorm"), {hidden});
    add(OfLayer(layer, "self_attn.q_proj"), {c.q_dim(), hidden});
    add(OfLayer(layer, "self_attn.k_proj"), {c.kv_dim(), hidden});
    add(OfLayer(layer, "self_attn.v_proj"), {c.kv_dim(), hidden});
    add(OfLayer(layer, "self_attn.q_norm"), {c.head_dim});
    add(OfLayer(layer, "self_attn.k_norm"), {c.head_dim});
    add(OfLayer(layer, "self_attn.o_proj"), {hidden, c.q_dim()});
    add(OfLayer(layer, "post_attention_layernorm"), {hidden});
    if (!c.is_moe_layer[static_cast<size_t>(layer)]) {
      add(OfLayer(layer, "mlp.gate_proj"), {c.dense_width, hidden});
      add(OfLayer(layer, "mlp.up_proj"), {c.dense_width, hidden});
      add(OfLayer(layer, "mlp.down_proj"), {hidden, c.dense_width});
      continue;
    }
    add(OfLayer(layer, "mlp.gate"), {c.num_experts, hidden});
    for (int expert = 0; expert < c.num_experts; ++expert) {
      add(OfExpert(layer, expert, "gate_proj"), {c.expert_width, hidden});
      add(OfExpert(layer, expert, "up_proj"), {c.expert_width, hidden});
      add(OfExpert(layer, expert, "down_proj"), {hidden, c.expert_width});
    }
  }
  add(tensor_name::kFinalNorm, {hidden});
  if (!c.tied_head) add(tensor_name::kHead, {c.vocab_size, hidden});
  return all;
}

ParameterCounts CountParameters(const ModelConfig& c) {
  const int64_t hidden = c.hidden_size;
  const int64_t embedding = int64_t{c.vocab_size} * hidden;
  const int64_t moe_layers = c.num_moe_layers();
  ParameterCounts counts;
  counts.one_expert = 3 * int64_t{c.expert_width} * hidden;
  counts.experts = moe_layers * c.num_experts * counts.one_expert;
  const int64_t attention = 2 * hidden +
                            hidden * (2 * int64_t{c.q_dim()} + 2 * int64_t{c.kv_dim()}) +
                            2 * int64_t{c.head_dim};
  const int64_t others = c.num_layers * attention + moe_layers * c.num_experts * hidden +
                         c.num_dense_layers() * 3 * int64_t{c.dense_width} * hidden + hidden;
  counts.total = embedding * (c.tied_head ? 1 : 2) + others + counts.experts;
  counts.active = embedding + others + moe_layers * c.experts_per_token * counts.one_expert;
  return counts;
}

}  // namespace bottega
