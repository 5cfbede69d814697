#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"

namespace bottega {

struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Every tensor that a checkpoint of this config has, in the order of the forward pass. A checkpoint
// with one missing, extra or misshaped is some other model and is refused.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// Names, as transformers writes them.
namespace tensor_name {
inline constexpr char kEmbedding[] = "model.embed_tokens.weight";
inline constexpr char kFinalNorm[] = "model.norm.weight";
inline constexpr char kHead[] = "lm_head.weight";
std::string OfLayer(int layer, const std::string& part);  // model.layers.3.<part>.weight
std::string OfExpert(int layer, int expert,
                     const std::string& part);  // ...mlp.experts.7.<part>.weight
}  // namespace tensor_name

struct ParameterCounts {
  int64_t total = 0;
  int64_t experts = 0;  // all experts of all layers
  int64_t one_expert = 0;
  int64_t active =
      0;  // read per decoded token: the head and all others, experts_per_token of the experts
};
ParameterCounts CountParameters(const ModelConfig& config);

}  // namespace bottega
