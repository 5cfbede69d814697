#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/tensor/dtype.h"

namespace bottega {

// How the matrices of a packed model are stored. Part of numerics_id. Values are part of the file
// format: never renumber.
enum class WeightFormat : uint8_t { kF32 = 0, kBF16 = 1, kInt8 = 2, kInt4 = 3 };

inline constexpr WeightFormat kEveryWeightFormat[] = {WeightFormat::kF32, WeightFormat::kBF16,
                                                      WeightFormat::kInt8, WeightFormat::kInt4};

// Integers with a scale a group (core/kernels/quantised.h); the others store plain elements.
constexpr bool IsQuantised(WeightFormat format) { return format >= WeightFormat::kInt8; }
// Of a format that is not quantised.
constexpr DType ElementOf(WeightFormat format) {
  return format == WeightFormat::kF32 ? DType::kF32 : DType::kBF16;
}
constexpr WeightFormat FormatOf(DType dtype) {
  return dtype == DType::kF32 ? WeightFormat::kF32 : WeightFormat::kBF16;
}

std::string_view Name(WeightFormat format);                             // "f32", "int8", ...
absl::StatusOr<WeightFormat> ParseWeightFormat(std::string_view name);  // the same words

}  // namespace bottega
