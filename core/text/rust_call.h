#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/text/rust/bottega_text.h"

// Between the C ABI and the faces in this folder; nobody else includes it.
namespace bottega::text {

inline bottega_text_span SpanOf(std::string_view text) { return {text.data(), text.size()}; }

// Bytes owned by the Rust side until this goes out of scope.
class OwnedBytes {
 public:
  OwnedBytes() = default;
  OwnedBytes(const OwnedBytes&) = delete;
  OwnedBytes& operator=(const OwnedBytes&) = delete;
  ~OwnedBytes() { bottega_text_free_bytes(bytes_); }

  bottega_text_bytes* out() { return &bytes_; }
  std::string_view view() const { return {bytes_.data, bytes_.size}; }

 private:
  bottega_text_bytes bytes_{nullptr, 0};
};

// The status of an entry and the message it left.
absl::Status StatusOf(bottega_text_status status, const OwnedBytes& message);

}  // namespace bottega::text
