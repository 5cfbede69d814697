#include "core/model/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/refusal.h"
#include "core/model/tensor_set.h"
#include "core/tensor/bf16.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

std::string Shape(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// tensor name -> file name
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const fs::path& dir) {
  ASSIGN_OR_RETURN(std::string text, ReadModelFile(dir, kIndexFile, limits::kIndexBytesMax));
  ASSIGN_OR_RETURN(json root, ParseCheckedJson(text, kIndexFile, limits::kIndexBytesMax));
  auto map = root.find("weight_map");
  if (map == root.end() || !map->is_object()) {
    return RefuseModel(kIndexFile, ": weight_map is missing or no object");
  }
  if (map->size() > limits::kTensorsMax) {
    return RefuseModel(kIndexFile, ": more than ", limits::kTensorsMax, " tensors");
  }
  std::map<std::string, std::string> result;
  for (const auto& [tensor, file] : map->items()) {
    if (!file.is_string()) return RefuseModel(kIndexFile, ": \"", tensor, "\" is not in a file");
    result[tensor] = file.get<std::string>();
  }
  return result;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const fs::path& dir) {
  std::error_code error;
  if (!fs::is_directory(dir, error)) return RefuseModel(dir.string(), ": no such directory");
  ASSIGN_OR_RETURN(std::string config, ReadModelFile(dir, "config.json", limits::kConfigBytesMax));
  std::string generation;
  if (HasModelFile(dir, "generation_config.json")) {
    ASSIGN_OR_RETURN(generation,
                     ReadModelFile(dir, "generation_config.json", limits::kConfigBytesMax));
  }
  return ParseModelConfig(config, generation);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const fs::path& dir,
                                                             FaultPoints* faults) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->dir_ = dir;
  checkpoint->faults_ = faults;
  ASSIGN_OR_RETURN(checkpoint->config_, ReadModelConfig(dir));
  RETURN_IF_ERROR(checkpoint->OpenFiles());
  RETURN_IF_ERROR(checkpoint->DropTiedHead());
  RETURN_IF_ERROR(checkpoint->CheckTensorSet());
  return checkpoint;
}

// A single file wins over an index, as in transformers.
absl::Status Checkpoint::OpenFiles() {
  if (HasModelFile(dir_, kSingleFile)) return AddFile(kSingleFile);
  if (!HasModelFile(dir_, kIndexFile)) {
    return RefuseModel(dir_.string(), ": neither ", kSingleFile, " nor ", kIndexFile);
  }
  sharded_ = true;
  ASSIGN_OR_RETURN(auto file_of_tensor, ReadIndex(dir_));
  std::set<std::string> names;
  for (const auto& [tensor, file] : file_of_tensor) names.insert(file);
  for (const std::string& name : names) {
    absl::Status status = AddFile(name);
    if (!status.ok()) return RefuseModel(kIndexFile, ": ", status.message());
  }
  return CheckIndex(file_of_tensor);
}

absl::Status Checkpoint::AddFile(const std::string& name) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir_, name, faults_));
  // The length is read, and judged, before a buffer of that length exists.
  std::vector<std::byte> head(std::min<uint64_t>(file.size(), 8));
  RETURN_IF_ERROR(file.ReadAt(0, head));
  uint64_t length = 0;
  for (size_t i = 0; i < head.size(); ++i) length |= std::to_integer<uint64_t>(head[i]) << (8 * i);
  if (length <= limits::kSafetensorsHeaderBytesMax) {
    head.resize(std::min<uint64_t>(file.size(), 8 + length));
    RETURN_IF_ERROR(file.ReadAt(0, head));
  }
  auto parsed = ParseSafetensorsHeader(head, file.size());
  if (!parsed.ok()) return RefuseModel(name, ": ", parsed.status().message());
  for (StoredTensor& stored : *parsed) {
    Tensor tensor{.dtype = stored.type == StoredType::kF32 ? DType::kF32 : DType::kBF16,
                  .shape = std::move(stored.shape),
                  .offset = stored.offset,
                  .bytes = stored.bytes,
                  .file = files_.size()};
    if (!tensors_.emplace(stored.name, Found{stored.type, std::move(tensor)}).second) {
      return RefuseModel(name, ": tensor \"", stored.name, "\" is in another file too");
    }
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckIndex(
    const std::map<std::string, std::string>& file_of_tensor) const {
  for (const auto& [name, file] : file_of_tensor) {
    auto it = tensors_.find(name);
    if (it == tensors_.end() || files_[it->second.tensor.file].name() != file) {
      return RefuseModel(kIndexFile, ": tensor \"", name, "\" is not in ", file);
    }
  }
  for (const auto& [name, found] : tensors_) {
    if (!file_of_tensor.count(name)) {
      return RefuseModel(files_[found.tensor.file].name(), ": tensor \"", name,
                         "\" is not in the index");
    }
  }
  return absl::OkStatus();
}

// Some writers store a tied head beside the embedding. It is left out if it says the same thing.
absl::Status Checkpoint::DropTiedHead() {
  auto head = tensors_.find(tensor_name::kHead);
  auto embedding = tensors_.find(tensor_name::kEmbedding);
  if (!config_.tied_head || head == tensors_.end() || embedding == tensors_.end()) {
    return absl::OkStatus();
  }
  const Tensor& a = head->second.tensor;
  const Tensor& b = embedding->second.tensor;
  bool same = a.shape == b.shape && head->second.type == embedding->second.type;
  std::vector<std::byte> left(1 << 20);
  std::vector<std::byte> right(1 << 20);
  for (uint64_t at = 0; same && at < a.bytes; at += left.size()) {
    size_t count = std::min<uint64_t>(left.size(), a.bytes - at);
    RETURN_IF_ERROR(files_[a.file].ReadAt(a.offset + at, std::span(left).first(count)));
    RETURN_IF_ERROR(files_[b.file].ReadAt(b.offset + at, std::span(right).first(count)));
    same = std::memcmp(left.data(), right.data(), count) == 0;
  }
  if (!same) {
    return RefuseModel(files_[a.file].name(), ": tensor \"", tensor_name::kHead,
                       "\" differs from the embedding, but tie_word_embeddings is true");
  }
  tensors_.erase(head);
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckTensorSet() {
  size_t expected_count = 0;
  for (const ExpectedTensor& expected : ExpectedTensors(config_)) {
    ++expected_count;
    auto it = tensors_.find(expected.name);
    if (it == tensors_.end()) {
      return RefuseModel(sharded_ ? kIndexFile : kSingleFile, ": tensor \"", expected.name,
                         "\" is missing");
    }
    const auto& [type, tensor] = it->second;
    const std::string& file = files_[tensor.file].name();
    if (tensor.shape != expected.shape) {
      return RefuseModel(file, ": tensor \"", expected.name, "\" has shape ", Shape(tensor.shape),
                         ", the config asks for ", Shape(expected.shape));
    }
    if (type != StoredType::kF32 && type != StoredType::kBF16) {
      return RefuseModel(file, ": tensor \"", expected.name, "\" is ", Name(type),
                         "; BF16 and F32 are implemented");
    }
  }
  if (tensors_.size() == expected_count) return absl::OkStatus();
  std::set<std::string> names;
  for (ExpectedTensor& expected : ExpectedTensors(config_)) names.insert(std::move(expected.name));
  for (const auto& [name, found] : tensors_) {
    if (names.count(name)) continue;
    return RefuseModel(files_[found.tensor.file].name(), ": tensor \"", name,
                       "\" is not part of this model");
  }
  return absl::OkStatus();
}

const Checkpoint::Tensor& Checkpoint::Find(std::string_view name) const {
  auto it = tensors_.find(name);
  CHECK(it != tensors_.end());
  return it->second.tensor;
}

absl::Status Checkpoint::Read(const Tensor& tensor, int64_t first,
                              std::span<std::byte> into) const {
  uint64_t begin = static_cast<uint64_t>(first) * SizeOf(tensor.dtype);
  CHECK(begin + into.size() <= tensor.bytes);
  return files_[tensor.file].ReadAt(tensor.offset + begin, into);
}

absl::StatusOr<std::vector<float>> Checkpoint::ReadFloats(std::string_view name) const {
  const Tensor& tensor = Find(name);
  std::vector<float> floats(tensor.bytes / SizeOf(tensor.dtype));
  if (tensor.dtype == DType::kF32) {
    RETURN_IF_ERROR(Read(tensor, 0, std::as_writable_bytes(std::span(floats))));
    return floats;
  }
  std::vector<BF16> stored(floats.size());
  RETURN_IF_ERROR(Read(tensor, 0, std::as_writable_bytes(std::span(stored))));
  std::transform(stored.begin(), stored.end(), floats.begin(), Widen);
  return floats;
}

}  // namespace bottega
