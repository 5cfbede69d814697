#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/base/fault_point.h"
#include "core/tensor/weight_format.h"

namespace bottega {

struct PackOptions {
  WeightFormat weights = WeightFormat::kBF16;
  int threads = 0;  // 0: as many as the machine has, at most 8
  // Called from any thread, one call at a time, with bytes done of all work (hash and pack).
  std::function<void(uint64_t done, uint64_t total)> progress;
  // Set: another process packing into `out` is waited for (after one call) and its result taken.
  // Not set: that is an error, and so is an `out` that exists.
  std::function<void()> wait;
  // pack.region, before each region; ModelFile::Open of the sources; RegionSink.
  FaultPoints* faults = nullptr;
};

// Packs the Hugging Face directory `dir` into the new directory `out` (packed_format.h).
//
// All or nothing: work goes on in `out`.partial, which is renamed last. Killed half-way and started
// again, it keeps every region whose bytes still have the checksums that its journal says, provided
// that the source files are the same (names, sizes, times). A lock (`out`.lock) keeps a second
// packer out; free space is checked, and reserved, before the first byte. `out` must not exist.
absl::Status PackModel(const std::filesystem::path& dir, const std::filesystem::path& out,
                       const PackOptions& options);

struct CacheOptions {
  std::filesystem::path cache;          // empty: DefaultModelCache()
  std::optional<WeightFormat> weights;  // absent: a packed directory's own, bf16 for others
  std::function<void(uint64_t done, uint64_t total)> progress;
  std::function<void(std::string_view)> note;  // one line for the user: what is being waited for
  FaultPoints* faults = nullptr;               // PackOptions
};

// The packed directory to serve `dir` from: `dir` itself if it is packed, else the cache's copy,
// packed now if there is none. The key is a hash of the source files' names, sizes and modification
// times and of the weight format, so an edited model is packed anew. Waits for another process that
// is packing the same.
absl::StatusOr<std::filesystem::path> PackedFor(const std::filesystem::path& dir,
                                                const CacheOptions& options);

// $XDG_CACHE_HOME/bottega/models, or ~/.cache/bottega/models.
std::filesystem::path DefaultModelCache();

bool IsPacked(const std::filesystem::path& dir);

}  // namespace bottega
