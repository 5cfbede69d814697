#pragma once

#include <string_view>

#include "absl/types/span.h"

namespace bottega::gateway {

// One file of the chat page (gateway/page), as it was when the program was built.
struct PageFile {
  std::string_view path;  // "/" is index.html, of the others "/page/NAME"
  std::string_view type;  // Content-Type
  std::string_view etag;  // with its quotes; changes with the bytes
  std::string_view bytes;
};

absl::Span<const PageFile> PageFiles();
const PageFile* FindPageFile(std::string_view path);

}  // namespace bottega::gateway
