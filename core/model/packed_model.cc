#include "core/model/packed_model.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/kernels/swiglu.h"
#include "core/model/model_file.h"
#include "core/model/refusal.h"
#include "core/model/sha256.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

constexpr char kManifestFile[] = "manifest.json";
constexpr char kDigestFile[] = "manifest.sha256";

// `bytes` is the size of a file whose last region ends somewhere in its last page.
absl::Status CheckWeightFiles(const fs::path& dir, const std::vector<Region>& plan) {
  for (size_t i = 0; i < plan.size(); ++i) {
    if (i + 1 < plan.size() && plan[i + 1].file == plan[i].file) continue;
    ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, plan[i].file));
    uint64_t bytes = RoundUp(plan[i].offset + plan[i].bytes, kRegionAlignment);
    if (file.size() != bytes) {
      return RefuseModel(plan[i].file, ": ", file.size(), " bytes, the manifest asks for ", bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCopiedFile(const fs::path& dir, const FileSum& sum) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, sum.name));
  if (file.size() != sum.bytes) {
    return RefuseModel(sum.name, ": ", file.size(), " bytes, the manifest asks for ", sum.bytes);
  }
  ASSIGN_OR_RETURN(std::string sha256, Sha256OfFile(file));
  if (sha256 != sum.sha256)
    return RefuseModel(sum.name, ": damaged: SHA-256 differs from the manifest");
  return absl::OkStatus();
}

// Typed views of a mapped region, one section after the other.
class Sections {
 public:
  Sections(const Region& region, const std::byte* data, WeightFormat weights)
      : region_(region), data_(data), weights_(weights) {}

  const std::byte* Rows() { return data_ + Next(Section::Kind::kRows).offset; }
  const float* Vector() {
    return reinterpret_cast<const float*>(data_ + Next(Section::Kind::kVector).offset);
  }
  WeightMatrix Tiles() {
    const Section& section = Next(Section::Kind::kTiles);
    int64_t n = 0;
    for (int64_t rows : section.rows) n += rows;
    return {data_ + section.offset, weights_, n, section.k};
  }
  PackedMatrix TilesF32() {
    const Section& section = Next(Section::Kind::kTilesF32);
    return {data_ + section.offset, DType::kF32, section.rows[0], section.k};
  }
  GatedMlpWeights GatedMlp() {
    const Section& section = Next(Section::Kind::kGateUp);
    GatedMlpWeights mlp;
    mlp.width = section.rows[0];
    const int64_t outputs = IsQuantised(weights_) ? 2 * mlp.width : GateUpOutputs(mlp.width);
    mlp.gate_up = {data_ + section.offset, weights_, outputs, section.k};
    mlp.down = Tiles();
    return mlp;
  }

 private:
  const Section& Next(Section::Kind kind) {
    const Section& section = region_.sections[next_++];
    CHECK(section.kind == kind);
    return section;
  }

  const Region& region_;
  const std::byte* data_;
  WeightFormat weights_;
  size_t next_ = 0;
};

// A piece of a region: page tables are filled and bytes are summed while they are in the cache.
constexpr size_t kPieceBytes = 1 << 20;

// Nothing where it cannot be read: the file was cut under its mapping, or the disk fails.
std::optional<uint32_t> RegionCrc(const Region& region, Mapping& mapping,
                                  const RegionReading& reading) {
  const size_t pieces = (region.bytes + kPieceBytes - 1) / kPieceBytes;
  const auto bytes_of = [&](size_t piece) {
    return std::min(kPieceBytes, region.bytes - piece * kPieceBytes);
  };
  std::vector<uint32_t> sums(pieces);
  std::atomic<bool> readable = true;
  const auto sum = [&](int64_t piece, int) {
    const std::byte* const at = mapping.data() + piece * kPieceBytes;
    if (reading.faults != nullptr && !FAULT_POINT(*reading.faults, "load.region").ok()) {
      readable = false;
      return;
    }
    // One call instead of a fault for every 16 pages, and an error instead of SIGBUS; a kernel
    // without it (EINVAL) leaves us the faults.
    if (::madvise(const_cast<std::byte*>(at), bytes_of(piece), MADV_POPULATE_READ) != 0 &&
        errno != EINVAL) {
      readable = false;
      return;
    }
    sums[piece] = Crc32c(at, bytes_of(piece));
    mapping.loaded().Add(static_cast<int64_t>(bytes_of(piece)));
  };
  if (reading.pool != nullptr) {
    reading.pool->ParallelFor(static_cast<int64_t>(pieces), sum);
  } else {
    for (size_t piece = 0; piece < pieces; ++piece) sum(static_cast<int64_t>(piece), 0);
  }
  if (!readable) return std::nullopt;
  // The name's closing 0 is part of the sum.
  uint32_t crc = Crc32c(region.name.c_str(), region.name.size() + 1);
  for (size_t piece = 0; piece < pieces; ++piece) {
    crc = CombineCrc32c(crc, sums[piece], bytes_of(piece));
  }
  return crc;
}

}  // namespace

// Whole, because the page cache keeps a file in pages of up to 2 MiB, aligned in the file: a
// mapping that lies as the file does takes such a page in one step, where pieces that begin
// anywhere take 512. Told that it is huge, the kernel also reads ahead by that size, which fills a
// cold cache faster than MADV_WILLNEED, and in large pages.
absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Map(const fs::path& dir,
                                                                  const std::string& name) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, name));
  void* const address = ::mmap(nullptr, file.size(), PROT_READ, MAP_SHARED, file.fd(), 0);
  if (address == MAP_FAILED) {
    return absl::ResourceExhaustedError(name + ": cannot map: " + std::strerror(errno));
  }
  ::madvise(address, file.size(), MADV_HUGEPAGE);
  return std::shared_ptr<const MappedFile>(
      new MappedFile(static_cast<const std::byte*>(address), file.size()));
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), bytes_); }

Mapping::~Mapping() {
  if (file_) ::madvise(const_cast<std::byte*>(data_), bytes_, MADV_DONTNEED);
}

absl::StatusOr<std::shared_ptr<const PackedModel>> PackedModel::Open(const fs::path& dir,
                                                                     const RegionReading& reading) {
  std::shared_ptr<PackedModel> model(new PackedModel);
  model->dir_ = dir;
  model->reading_ = reading;
  ASSIGN_OR_RETURN(std::string text, ReadModelFile(dir, kManifestFile, limits::kManifestBytesMax));
  ASSIGN_OR_RETURN(std::string digest, ReadModelFile(dir, kDigestFile, 65));
  model->digest_ = Sha256Hex(text);
  if (digest != model->digest_ + "\n") {
    return RefuseModel(kManifestFile, ": damaged: its SHA-256 differs from ", kDigestFile);
  }
  ASSIGN_OR_RETURN(model->manifest_, ParseManifest(text));
  model->plan_ = PlanRegions(model->config(), model->weights());
  for (const FileSum& sum : model->manifest_.files) RETURN_IF_ERROR(CheckCopiedFile(dir, sum));
  RETURN_IF_ERROR(CheckWeightFiles(dir, model->plan_));
  return model;
}

absl::StatusOr<std::string> PackedModel::ReadCopiedFile(std::string_view name) const {
  for (const FileSum& sum : manifest_.files) {
    if (sum.name != name) continue;
    ASSIGN_OR_RETURN(std::string content, ReadModelFile(dir_, name, sum.bytes));
    if (Sha256Hex(content) != sum.sha256) {
      return RefuseModel(sum.name, ": damaged: SHA-256 differs from the manifest");
    }
    return content;
  }
  return absl::NotFoundError(std::string(name) + ": the model has no such file");
}

absl::StatusOr<std::shared_ptr<const MappedFile>> PackedModel::FileOf(const Region& region) const {
  absl::MutexLock lock(&files_mutex_);
  std::weak_ptr<const MappedFile>& known = files_[region.file];
  if (std::shared_ptr<const MappedFile> file = known.lock()) return file;
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, MappedFile::Map(dir_, region.file));
  known = file;
  return file;
}

absl::StatusOr<Mapping> PackedModel::MapRegion(size_t index) const {
  const Region& region = plan_[index];
  ASSIGN_OR_RETURN(std::shared_ptr<const MappedFile> file, FileOf(region));
  const uint64_t mapped = RoundUp(region.bytes, kRegionAlignment);
  if (region.offset + mapped > file->bytes()) {
    return RefuseModel(region.file, ": shorter than when it was packed");
  }
  Mapping mapping(std::move(file), region.offset, mapped, reading_.progress);
  const std::optional<uint32_t> crc = RegionCrc(region, mapping, reading_);
  if (!crc.has_value()) {
    return RefuseModel(region.file, ": region ", region.name, " cannot be read");
  }
  if (*crc != manifest_.sums[index].crc32c) {
    return RefuseModel(region.file, ": region ", region.name, " is damaged: CRC32C differs");
  }
  const std::byte* padding = mapping.data() + region.bytes;
  if (std::any_of(padding, mapping.data() + mapped,
                  [](std::byte b) { return b != std::byte{0}; })) {
    return RefuseModel(region.file, ": damaged: bytes after region ", region.name, " are not zero");
  }
  mapping.loaded().Add(static_cast<int64_t>(mapped - region.bytes));
  return mapping;
}

absl::StatusOr<AttentionWeights> PackedModel::MapAttention() const {
  AttentionWeights all;
  for (size_t i = 0; i < plan_.size(); ++i) {
    const Region& region = plan_[i];
    if (region.file != plan_[0].file) break;  // experts follow
    ASSIGN_OR_RETURN(Mapping mapping, MapRegion(i));
    Sections sections(region, mapping.data(), weights());
    if (region.name == "embedding") {
      all.embedding = sections.Rows();
    } else if (region.name == "final_norm") {
      all.final_norm = sections.Vector();
    } else if (region.name == "lm_head") {
      all.lm_head = sections.Tiles();
    } else {
      LayerWeights layer;
      layer.input_norm = sections.Vector();
      layer.q_norm = sections.Vector();
      layer.k_norm = sections.Vector();
      layer.post_attention_norm = sections.Vector();
      layer.qkv = sections.Tiles();
      layer.o = sections.Tiles();
      layer.is_moe = config().is_moe_layer[all.layers.size()] != 0;
      if (layer.is_moe) {
        layer.gate = sections.TilesF32();
      } else {
        layer.dense = sections.GatedMlp();
      }
      all.layers.push_back(layer);
    }
    all.mappings.push_back(std::move(mapping));
  }
  return all;
}

// Regions of experts follow embedding, layers, final norm and head, layer by layer.
size_t PackedModel::RegionOf(LayerId layer, ExpertId expert) const {
  size_t index = static_cast<size_t>(config().num_layers) + 3;
  for (size_t l = 0; l < layer.value; ++l) {
    if (config().is_moe_layer[l]) index += static_cast<size_t>(config().num_experts);
  }
  return index + expert.value;
}

absl::StatusOr<ExpertWeights> PackedModel::MapExpert(LayerId layer, ExpertId expert) const {
  if (layer.value >= config().num_layers || !config().is_moe_layer[layer.value] ||
      expert.value >= config().num_experts) {
    return absl::NotFoundError("the model has no " + ExpertRegionName(layer, expert));
  }
  size_t index = RegionOf(layer, expert);
  CHECK(plan_[index].name == ExpertRegionName(layer, expert));
  ExpertWeights weights;
  ASSIGN_OR_RETURN(weights.mapping, MapRegion(index));
  weights.mlp = Sections(plan_[index], weights.mapping.data(), this->weights()).GatedMlp();
  return weights;
}

uint64_t PackedModel::ExpertBytes() const {
  return RoundUp(plan_.back().bytes, kRegionAlignment);  // the last region is an expert's
}

uint64_t PackedModel::AttentionBytes() const {
  uint64_t bytes = 0;
  for (const Region& region : plan_) {
    if (region.file == plan_[0].file) bytes += RoundUp(region.bytes, kRegionAlignment);
  }
  return bytes;
}

uint64_t PackedModel::AllExpertBytes() const {
  return ExpertBytes() * static_cast<uint64_t>(config().num_moe_layers() * config().num_experts);
}

absl::Status PackedModel::Verify(
    const std::function<void(uint64_t done, uint64_t total)>& progress) const {
  uint64_t total = 0;
  for (const Region& region : plan_) total += RoundUp(region.bytes, kRegionAlignment);
  uint64_t done = 0;
  std::vector<std::byte> piece(4 << 20);
  for (size_t i = 0; i < plan_.size(); ++i) {
    const Region& region = plan_[i];
    ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir_, region.file));
    Sha256 sha;
    sha.Update(region.name.c_str(), region.name.size() + 1);
    const uint64_t padded = RoundUp(region.bytes, kRegionAlignment);
    for (uint64_t at = 0; at < padded; at += piece.size()) {
      auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), padded - at));
      RETURN_IF_ERROR(file.ReadAt(region.offset + at, part));
      size_t inside = at < region.bytes ? std::min<uint64_t>(part.size(), region.bytes - at) : 0;
      sha.Update(part.data(), inside);
      if (std::any_of(part.begin() + static_cast<std::ptrdiff_t>(inside), part.end(),
                      [](std::byte b) { return b != std::byte{0}; })) {
        return RefuseModel(region.file, ": damaged: bytes after region ", region.name,
                           " are not zero");
      }
      done += part.size();
      if (progress) progress(done, total);
    }
    if (sha.Hex() != manifest_.sums[i].sha256) {
      return RefuseModel(region.file, ": region ", region.name, " is damaged: SHA-256 differs");
    }
  }
  return absl::OkStatus();
}

}  // namespace bottega
