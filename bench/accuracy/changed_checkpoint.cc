#include "bench/accuracy/changed_checkpoint.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "absl/strings/match.h"
#include "core/base/status.h"
#include "tests/core/model/checkpoint_writer.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

// The norm over hidden whose output this matrix multiplies; empty: none.
std::string NormBefore(const std::string& name) {
  if (name == tensor_name::kHead) return tensor_name::kFinalNorm;
  for (const char* part : {".q_proj.", ".k_proj.", ".v_proj."}) {
    if (absl::StrContains(name, part)) {
      return name.substr(0, name.find(".self_attn.")) + ".input_layernorm.weight";
    }
  }
  if (absl::StrContains(name, ".mlp.") && !absl::StrContains(name, ".down_proj.")) {
    return name.substr(0, name.find(".mlp.")) + ".post_attention_layernorm.weight";
  }
  return "";
}

bool IsNormOverHidden(const std::string& name) {
  return name == tensor_name::kFinalNorm || absl::EndsWith(name, "layernorm.weight");
}

void Scale(const std::vector<int64_t>& columns, int64_t width, float factor,
           std::vector<float>& values) {
  for (size_t row = 0; row < values.size(); row += static_cast<size_t>(width)) {
    for (int64_t column : columns) values[row + static_cast<size_t>(column)] *= factor;
  }
}

}  // namespace

absl::Status WriteChanged(const Checkpoint& from, const fs::path& to, const ChangeTensor& change) {
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& tensor : ExpectedTensors(from.config())) {
    ASSIGN_OR_RETURN(std::vector<float> values, from.ReadFloats(tensor.name));
    change(tensor, values);
    tensors.push_back(
        {tensor.name, "F32", tensor.shape,
         std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float))});
  }
  for (const auto& entry : fs::directory_iterator(from.dir())) {
    const std::string name = entry.path().filename().string();
    if (!absl::StrContains(name, "safetensors")) fs::copy_file(entry.path(), to / name);
  }
  WriteWeights(to, tensors, 1);
  return absl::OkStatus();
}

bool IsPackedMatrix(const ExpectedTensor& tensor) {
  return tensor.shape.size() == 2 && !absl::EndsWith(tensor.name, ".mlp.gate.weight");
}

std::vector<int64_t> OutlierChannels(int64_t width, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int64_t> channels;
  while (channels.size() < kOutliers) {
    const auto channel = static_cast<int64_t>(random() % static_cast<uint64_t>(width));
    if (std::count(channels.begin(), channels.end(), channel) == 0) channels.push_back(channel);
  }
  std::sort(channels.begin(), channels.end());
  return channels;
}

ChangeTensor AddOutliers(uint64_t seed) {
  auto channels = std::make_shared<std::map<std::string, std::vector<int64_t>>>();  // by norm
  return [channels, seed](const ExpectedTensor& tensor, std::vector<float>& values) {
    const int64_t width = tensor.shape.back();
    if (IsNormOverHidden(tensor.name)) {
      auto& chosen = (*channels)[tensor.name];
      chosen = OutlierChannels(width, seed * 1000 + channels->size());
      Scale(chosen, width, kOutlierFactor, values);
    }
    const auto norm = channels->find(NormBefore(tensor.name));
    if (norm != channels->end()) Scale(norm->second, width, 1 / kOutlierFactor, values);
  };
}

ChangeTensor RoundMatrices(const BlockFormat& format) {
  return [format](const ExpectedTensor& tensor, std::vector<float>& values) {
    if (!IsPackedMatrix(tensor)) return;
    const auto width = static_cast<size_t>(tensor.shape.back());
    for (size_t row = 0; row < values.size(); row += width) {
      format.RoundWeights(std::span(values).subspan(row, width));
    }
  };
}

}  // namespace bottega
