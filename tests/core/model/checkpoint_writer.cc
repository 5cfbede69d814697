#include "tests/core/model/checkpoint_writer.h"

#include <cmath>
#include <cstring>
#include <random>

#include "core/base/check.h"
#include "core/model/config.h"
#include "core/model/tensor_set.h"
#include "core/tensor/bf16.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {

using nlohmann::json;

std::string SafetensorsFile(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file + header + data;
}

std::string SafetensorsFile(const std::vector<TensorToWrite>& tensors) {
  json header = json::object();
  std::string data;
  for (const TensorToWrite& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  header["__metadata__"] = {{"format", "pt"}};
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // as the usual writer pads it
  return SafetensorsFile(text, data);
}

json SmallConfig() {
  return {{"model_type", "enggpt_moe"},
          {"vocab_size", 37},
          {"hidden_size", 40},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 24},
          {"num_experts", 6},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 24},
          {"max_position_embeddings", 128},
          {"norm_topk_prob", true},
          {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 1e6},
          {"tie_word_embeddings", false},
          {"eos_token_id", 3},
          {"dtype", "bfloat16"}};
}

std::vector<TensorToWrite> RandomTensors(const json& config, DType dtype, uint64_t seed) {
  auto parsed = ParseModelConfig(config.dump(), "");
  CHECK(parsed.ok());
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& expected : ExpectedTensors(*parsed)) {
    TensorToWrite tensor{expected.name, dtype == DType::kF32 ? "F32" : "BF16", expected.shape, ""};
    size_t count = 1;
    for (int64_t extent : expected.shape) count *= static_cast<size_t>(extent);
    const bool vector = expected.shape.size() == 1;
    const float scale = vector ? 0.1f : 1.0f / std::sqrt(static_cast<float>(expected.shape.back()));
    for (size_t i = 0; i < count; ++i) {
      float value = scale * normal(random) + (vector ? 1.0f : 0.0f);
      BF16 rounded = RoundToBF16(value);
      const void* from = dtype == DType::kF32 ? static_cast<const void*>(&value) : &rounded;
      tensor.bytes.append(static_cast<const char*>(from), SizeOf(dtype));
    }
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

void WriteWeights(const std::filesystem::path& dir, const std::vector<TensorToWrite>& tensors,
                  int shards) {
  if (shards == 1) return WriteFileBytes(dir / "model.safetensors", SafetensorsFile(tensors));
  json map = json::object();
  const size_t count = static_cast<size_t>(shards);
  std::vector<std::vector<TensorToWrite>> parts(count);
  for (size_t i = 0; i < tensors.size(); ++i)
    parts[i * count / tensors.size()].push_back(tensors[i]);
  for (size_t s = 0; s < count; ++s) {
    char name[64];
    std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", s + 1, count);
    for (const TensorToWrite& tensor : parts[s]) map[tensor.name] = name;
    WriteFileBytes(dir / name, SafetensorsFile(parts[s]));
  }
  WriteFileBytes(dir / "model.safetensors.index.json",
                 json({{"metadata", {{"total_size", 1}}}, {"weight_map", map}}).dump());
}

void WriteCheckpoint(const std::filesystem::path& dir, const CheckpointToWrite& checkpoint) {
  std::filesystem::create_directories(dir);
  WriteFileBytes(dir / "config.json", checkpoint.config.dump(1));
  WriteFileBytes(dir / "generation_config.json",
                 json({{"eos_token_id", {3, 4}}, {"temperature", 0.6}, {"top_k", 20}}).dump());
  WriteFileBytes(
      dir / "tokenizer.json",
      json({{"added_tokens", {{{"id", 3}, {"content", "<|im_end|>"}, {"special", true}}}},
            {"model", {{"type", "BPE"}}}})
          .dump());
  WriteFileBytes(dir / "chat_template.jinja", "{{ messages[0].content }}");
  WriteWeights(dir, RandomTensors(checkpoint.config, checkpoint.dtype, checkpoint.seed),
               checkpoint.shards);
}

}  // namespace bottega
