#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/config.h"
#include "core/model/model_file.h"
#include "core/model/safetensors_header.h"
#include "core/tensor/dtype.h"

namespace bottega {

// A Hugging Face directory as published: config.json, generation_config.json (optional), and
// safetensors in one file or in shards with an index. Open reads headers only and checks that the
// tensor set is exactly the config's: names, shapes, f32 or bf16. Immutable after Open; any thread.
class Checkpoint {
 public:
  struct Tensor {
    DType dtype;
    std::vector<int64_t> shape;
    uint64_t offset;  // in its file
    uint64_t bytes;
    size_t file;  // index in files()
  };

  // `faults`: ModelFile::Open, for the files of weights.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& dir,
                                                          FaultPoints* faults = nullptr);

  const std::filesystem::path& dir() const { return dir_; }
  const ModelConfig& config() const { return config_; }
  const std::vector<ModelFile>& files() const { return files_; }
  bool sharded() const { return sharded_; }

  // `name` is one of ExpectedTensors(config()).
  const Tensor& Find(std::string_view name) const;

  // Elements [first, first + into.size() / element size) of a tensor, as stored.
  absl::Status Read(const Tensor& tensor, int64_t first, std::span<std::byte> into) const;

  // All elements, widened to f32.
  absl::StatusOr<std::vector<float>> ReadFloats(std::string_view name) const;

 private:
  Checkpoint() = default;
  absl::Status OpenFiles();
  absl::Status AddFile(const std::string& name);
  absl::Status CheckIndex(const std::map<std::string, std::string>& file_of_tensor) const;
  absl::Status CheckTensorSet();
  absl::Status DropTiedHead();

  std::filesystem::path dir_;
  FaultPoints* faults_ = nullptr;
  ModelConfig config_;
  bool sharded_ = false;
  std::vector<ModelFile> files_;
  struct Found {
    StoredType type;
    Tensor tensor;
  };
  std::map<std::string, Found, std::less<>> tensors_;
};

// config.json and generation_config.json of `dir`, parsed.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::filesystem::path& dir);

}  // namespace bottega
