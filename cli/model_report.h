#pragma once

#include <string>
#include <vector>

#include "core/base/memory_limit.h"
#include "core/model/added_tokens.h"
#include "core/model/config.h"

namespace bottega {

// The text of `bottega inspect`, line by line; no file is read here.
struct ModelReport {
  std::string directory;  // "Hugging Face directory, 7 files" or "packed as bf16, digest ..."
  ModelConfig config;
  std::vector<AddedToken> added_tokens;
  std::vector<std::string> files;  // found beside the weights
  MemoryLimit memory;

  std::string Text() const;
};

}  // namespace bottega
