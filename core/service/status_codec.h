#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bottega {

// An absl::Status with its payloads (the Reason is one) as bytes, and back. Cut to what fits HTTP/2
// trailers: kStatusMessageBytesMax of message, kStatusDetailsMax payloads.
inline constexpr size_t kStatusMessageBytesMax = 1024;
inline constexpr size_t kStatusDetailsMax = 8;

std::string EncodeStatus(const absl::Status& status);
// Unknown bytes give `fallback`. Never Ok unless `bytes` says so.
absl::Status DecodeStatus(std::string_view bytes, absl::Status fallback);

}  // namespace bottega
