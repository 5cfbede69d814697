#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace bottega {

// Element types of stored bytes: weights, exchanged rows, the KV cache. Values are part of file and
// frame formats: never renumber. Arithmetic is always f32.
enum class DType : uint8_t { kF32 = 0, kBF16 = 1 };

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }
std::string_view Name(DType dtype);                       // "f32", "bf16"
absl::StatusOr<DType> ParseDType(std::string_view name);  // the same words

}  // namespace bottega
