#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// The files of a Hugging Face directory that a packed one carries along unchanged, if they are
// there: tokenizer, chat template, configs, licence (a packed model is a derivative and keeps its
// licence).
std::vector<std::string> CopiedFiles(const std::filesystem::path& dir);
uint64_t CopiedFileBytesMax(std::string_view name);

// A hash of what packing reads, as seen from outside: names, sizes and modification times of the
// files, the weight format and the versions of format and arithmetic. Equal keys: the same packed
// bytes. Cheap: no file is read but the index.
absl::StatusOr<std::string> SourceKey(const std::filesystem::path& dir, WeightFormat weights);

}  // namespace bottega
