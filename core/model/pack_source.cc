#include "core/model/pack_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/model_file.h"
#include "core/model/packed_format.h"
#include "core/model/refusal.h"
#include "core/model/sha256.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

struct CopiedFile {
  std::string_view name;
  uint64_t bytes_max;
};
constexpr CopiedFile kCopied[] = {
    {"LICENSE", limits::kConfigBytesMax},
    {"LICENSE.md", limits::kConfigBytesMax},
    {"LICENSE.txt", limits::kConfigBytesMax},
    {"NOTICE", limits::kConfigBytesMax},
    {"chat_template.jinja", limits::kChatTemplateBytesMax},
    {"config.json", limits::kConfigBytesMax},
    {"generation_config.json", limits::kConfigBytesMax},
    {"special_tokens_map.json", limits::kConfigBytesMax},
    {"tokenizer.json", limits::kTokenizerBytesMax},
    {"tokenizer_config.json", limits::kTokenizerBytesMax},
};

}  // namespace

std::vector<std::string> CopiedFiles(const fs::path& dir) {
  std::vector<std::string> names;
  for (const CopiedFile& file : kCopied) {
    if (HasModelFile(dir, file.name)) names.emplace_back(file.name);
  }
  return names;
}

uint64_t CopiedFileBytesMax(std::string_view name) {
  for (const CopiedFile& file : kCopied) {
    if (file.name == name) return file.bytes_max;
  }
  return 0;
}

absl::StatusOr<std::string> SourceKey(const fs::path& dir, WeightFormat weights) {
  std::vector<std::string> names = CopiedFiles(dir);
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json")) {
      names.push_back(std::move(name));
    }
  }
  if (error) return RefuseModel(dir.string(), ": ", error.message());
  std::sort(names.begin(), names.end());
  Sha256 sha;
  sha.Update(absl::StrCat(kPackedFormatVersion, " ", NumericsBase(weights), "\n"));
  for (const std::string& name : names) {
    struct stat info {};
    if (::stat((dir / name).c_str(), &info) != 0) continue;  // opening it will say what is wrong
    sha.Update(absl::StrCat(name, "\n", info.st_size, " ", info.st_mtim.tv_sec, ".",
                            info.st_mtim.tv_nsec, "\n"));
  }
  return sha.Hex();
}

}  // namespace bottega
