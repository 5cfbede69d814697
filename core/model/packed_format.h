#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/strong_id.h"
#include "core/model/config.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// A packed directory (docs: model files):
//
//   manifest.json            all below; its SHA-256 is the model digest
//   manifest.sha256          that digest, 64 hex digits and a newline
//   attention.weights        regions "embedding", "layer.N" of every layer, "final_norm", "lm_head"
//   experts.NNN.weights      regions "layer.N.expert.E" of one layer
//   tokenizer.json, chat_template.jinja, ...   copied; SHA-256 in the manifest
//
// A region starts at a multiple of 4096 and is followed by zero bytes up to the next one: it can be
// mapped alone. Which regions there are, their order, offsets and sizes are a pure function of
// (config, weight format): PlanRegions. The manifest repeats them with their checksums, and a
// reader refuses a manifest that differs from the plan.
inline constexpr int kPackedFormatVersion = 1;
// Grows when any defined order of arithmetic or any packing changes; part of numerics_id.
inline constexpr int kArithmeticVersion = 2;
inline constexpr uint64_t kRegionAlignment = 4096;
inline constexpr uint64_t kSectionAlignment = 64;

// "v2-bf16": arithmetic version and weight format; a worker appends the row type R.
std::string NumericsBase(WeightFormat weights);

// What lies inside a region, in order, each section at a multiple of 64. Matrices are PackedMatrix
// of core/kernels/matmul.h or QuantisedMatrix of core/kernels/quantised.h; norms are f32 [width];
// the router's matrix is f32 in every format, so that a weight format never changes which experts
// are chosen by rounding the router itself.
struct Section {
  enum class Kind {
    kRows,      // read by row (embedding): [rows, k] elements, or quantised table rows
    kVector,    // [k] f32
    kTiles,     // sources stacked, one matrix in the weight format
    kTilesF32,  // the same, always PackedMatrix of f32
    kGateUp,    // two sources interleaved (core/model/weight_matrix.h), the weight format
  };
  Kind kind;
  std::vector<std::string> sources;  // checkpoint tensor names, [rows_i, k] each
  std::vector<int64_t> rows;         // of each source
  int64_t k;
  uint64_t offset;  // in the region
  uint64_t bytes;
};

struct Region {
  std::string name;
  std::string file;
  uint64_t offset;
  uint64_t bytes;  // of the sections, the gaps between them included
  std::vector<Section> sections;
};

// Whether the model can be stored so: quantised matrices need inputs in multiples of 8. The error
// names the size.
absl::Status CheckWeightFormat(const ModelConfig& config, WeightFormat weights);

// For a format that CheckWeightFormat allows.
std::vector<Region> PlanRegions(const ModelConfig& config, WeightFormat weights);

constexpr uint64_t RoundUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

std::string LayerRegionName(int layer);
std::string ExpertRegionName(LayerId layer, ExpertId expert);

// Checksums of a region begin with its name, so that the bytes of two equally shaped experts cannot
// change places: crc32c = CRC32C(name, 0x00, bytes), sha256 = SHA-256 of the same.
struct RegionSums {
  uint32_t crc32c = 0;
  std::string sha256;  // hex
};

struct FileSum {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;  // hex
};

struct Manifest {
  WeightFormat weights = WeightFormat::kBF16;
  ModelConfig config;
  RopeTable rope;
  std::vector<FileSum> files;    // copied beside the weights
  std::vector<FileSum> sources;  // what the model was packed from; of random weights: the seed
  std::vector<RegionSums> sums;  // [PlanRegions]
};

// Equal manifests give equal bytes.
std::string ManifestJson(const Manifest& manifest);

// Refuses whatever ManifestJson would not have written for some manifest.
absl::StatusOr<Manifest> ParseManifest(std::string_view json);

}  // namespace bottega
