#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/base/fault_point.h"
#include "core/base/load_progress.h"
#include "core/base/strong_id.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/config.h"
#include "core/model/packed_format.h"
#include "core/model/weight_matrix.h"

namespace bottega {

// A file of weights, mapped whole and read-only; nothing of it is in memory by that alone.
class MappedFile {
 public:
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Map(const std::filesystem::path& dir,
                                                               const std::string& name);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  MappedFile(const std::byte* data, size_t bytes) : data_(data), bytes_(bytes) {}
  const std::byte* const data_;
  const size_t bytes_;
};

// Some pages of a mapped file; given back on destruction.
class Mapping {
 public:
  Mapping() = default;
  Mapping(std::shared_ptr<const MappedFile> file, size_t offset, size_t bytes,
          LoadProgress* progress)
      : file_(std::move(file)), data_(file_->data() + offset), bytes_(bytes), loaded_(progress) {}
  Mapping(Mapping&& other) noexcept { swap(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Mapping();

  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  LoadedBytes& loaded() { return loaded_; }  // of them

 private:
  void swap(Mapping& other) {
    std::swap(file_, other.file_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(loaded_, other.loaded_);
  }
  std::shared_ptr<const MappedFile> file_;
  const std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  LoadedBytes loaded_;
};

// What an attention worker needs of one layer.
struct LayerWeights {
  const float* input_norm = nullptr;           // [hidden]
  const float* q_norm = nullptr;               // [head_dim]
  const float* k_norm = nullptr;               // [head_dim]
  const float* post_attention_norm = nullptr;  // [hidden]
  WeightMatrix qkv;                            // [q_dim + 2 kv_dim, hidden]: q rows, k rows, v rows
  WeightMatrix o;                              // [hidden, q_dim]
  bool is_moe = true;
  PackedMatrix gate;      // [experts, hidden], f32 in every format; MoE layers
  GatedMlpWeights dense;  // dense layers
};

// Everything but the experts. Movable; pointers stay valid while it lives.
struct AttentionWeights {
  // [vocab] rows: [hidden] elements, or QuantisedTableRowBytes of a quantised format.
  const std::byte* embedding = nullptr;
  std::vector<LayerWeights> layers;   // [num_layers]
  const float* final_norm = nullptr;  // [hidden]
  WeightMatrix lm_head;               // [vocab, hidden]; lanes past vocab are zero rows, not tokens

  std::vector<Mapping> mappings;
};

struct ExpertWeights {
  GatedMlpWeights mlp;
  Mapping mapping;
};

// With what regions are read; each may be null, and outlives the model and what it has mapped.
struct RegionReading {
  ThreadPool* pool = nullptr;        // its threads share the pieces of a region
  LoadProgress* progress = nullptr;  // is told of every piece that is read
  FaultPoints* faults = nullptr;     // `load.region`: of every piece
};

// A packed directory, opened: manifest and copied files read and checked, no weights mapped yet.
// Immutable; any thread. Every Map* call reads all bytes of its regions once, refuses a region
// whose CRC32C is not the manifest's, and returns memory shared with every other process on this
// machine that maps the same file.
class PackedModel {
 public:
  static absl::StatusOr<std::shared_ptr<const PackedModel>> Open(const std::filesystem::path& dir,
                                                                 const RegionReading& reading = {});

  const std::filesystem::path& dir() const { return dir_; }
  const Manifest& manifest() const { return manifest_; }
  const ModelConfig& config() const { return manifest_.config; }
  const RopeTable& rope() const { return manifest_.rope; }
  WeightFormat weights() const { return manifest_.weights; }
  const std::string& digest() const { return digest_; }  // hex SHA-256 of the manifest
  std::string numerics_base() const { return NumericsBase(manifest_.weights); }

  // A copied file's checked content ("tokenizer.json", "chat_template.jinja", ...). Not found: the
  // model has none.
  absl::StatusOr<std::string> ReadCopiedFile(std::string_view name) const;

  absl::StatusOr<AttentionWeights> MapAttention() const;
  // Of a MoE layer; NotFound where the model has no such expert.
  absl::StatusOr<ExpertWeights> MapExpert(LayerId layer, ExpertId expert) const;
  uint64_t ExpertBytes() const;     // of one expert's region: what a placement counts
  uint64_t AttentionBytes() const;  // of all that are no expert's
  uint64_t AllExpertBytes() const;  // of all experts'

  // Reads everything and compares the SHA-256 of every region (`inspect --verify`).
  absl::Status Verify(const std::function<void(uint64_t done, uint64_t total)>& progress) const;

 private:
  PackedModel() = default;
  absl::StatusOr<Mapping> MapRegion(size_t region) const;
  absl::StatusOr<std::shared_ptr<const MappedFile>> FileOf(const Region& region) const;
  size_t RegionOf(LayerId layer, ExpertId expert) const;

  std::filesystem::path dir_;
  RegionReading reading_;
  Manifest manifest_;
  std::string digest_;
  std::vector<Region> plan_;

  mutable absl::Mutex files_mutex_;
  // Those of which a region is mapped.
  mutable std::map<std::string, std::weak_ptr<const MappedFile>> files_
      ABSL_GUARDED_BY(files_mutex_);
};

}  // namespace bottega
