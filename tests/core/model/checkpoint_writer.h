#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"
#include "nlohmann/json.hpp"

namespace bottega {

// Makes checkpoints in the published form, small and random, for tests.

struct TensorToWrite {
  std::string name;
  std::string dtype;  // as the header spells it
  std::vector<int64_t> shape;
  std::string bytes;
};

// A whole safetensors file.
std::string SafetensorsFile(const std::vector<TensorToWrite>& tensors);
// The same from a header text of any content and data of any length.
std::string SafetensorsFile(const std::string& header, const std::string& data);

// A config.json that is accepted; tests change fields of it.
nlohmann::json SmallConfig();

// Every tensor of the config, seeded: matrices about N(0, 1/k), norms about 1.
std::vector<TensorToWrite> RandomTensors(const nlohmann::json& config, DType dtype, uint64_t seed);

struct CheckpointToWrite {
  nlohmann::json config = SmallConfig();
  DType dtype = DType::kBF16;
  int shards = 1;  // 1: model.safetensors; more: an index
  uint64_t seed = 1;
};

// Writes config.json, generation_config.json, weights, a small tokenizer.json and a chat template.
void WriteCheckpoint(const std::filesystem::path& dir, const CheckpointToWrite& checkpoint = {});
// The weights only, from tensors that a test has changed.
void WriteWeights(const std::filesystem::path& dir, const std::vector<TensorToWrite>& tensors,
                  int shards);

}  // namespace bottega
