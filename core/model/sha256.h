#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/model/model_file.h"

struct evp_md_ctx_st;

namespace bottega {

class Sha256 {
 public:
  Sha256();
  void Update(const void* data, size_t bytes);
  void Update(std::string_view data) { Update(data.data(), data.size()); }
  std::string Hex();  // 64 digits; ends the computation

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string Sha256Hex(std::string_view data);

// Of a whole file, in pieces.
absl::StatusOr<std::string> Sha256OfFile(const ModelFile& file);

}  // namespace bottega
