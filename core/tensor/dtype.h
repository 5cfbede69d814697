#pragma once

#include <cstddef>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/tensor/dtype_id.h"

namespace bottega {

constexpr size_t SizeOf(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }
std::string_view Name(DType dtype);                       // "f32", "bf16"
absl::StatusOr<DType> ParseDType(std::string_view name);  // the same words

}  // namespace bottega
