#include "core/model/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"

namespace bottega {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Update(const void* data, size_t bytes) {
  CHECK(EVP_DigestUpdate(context_.get(), data, bytes) == 1);
}

std::string Sha256::Hex() {
  unsigned char digest[32];
  unsigned int bytes = 0;
  CHECK(EVP_DigestFinal_ex(context_.get(), digest, &bytes) == 1 && bytes == sizeof(digest));
  std::string text;
  for (unsigned char byte : digest) {
    text.push_back("0123456789abcdef"[byte >> 4]);
    text.push_back("0123456789abcdef"[byte & 15]);
  }
  return text;
}

std::string Sha256Hex(std::string_view data) {
  Sha256 sha;
  sha.Update(data);
  return sha.Hex();
}

absl::StatusOr<std::string> Sha256OfFile(const ModelFile& file) {
  Sha256 sha;
  std::vector<std::byte> piece(std::min<uint64_t>(file.size(), 4 << 20));
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), file.size() - at));
    RETURN_IF_ERROR(file.ReadAt(at, part));
    sha.Update(part.data(), part.size());
  }
  return sha.Hex();
}

}  // namespace bottega
