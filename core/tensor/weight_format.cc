#include "core/tensor/weight_format.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/reason.h"

namespace bottega {

std::string_view Name(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kInt8:
      return "int8";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "?";
}

absl::StatusOr<WeightFormat> ParseWeightFormat(std::string_view name) {
  for (WeightFormat format : kEveryWeightFormat) {
    if (Name(format) == name) return format;
  }
  return MakeError(Reason::kInvalidValue, absl::StrCat("unknown weight format '", std::string(name),
                                                       "'; one of f32, bf16, int8, int4"));
}

}  // namespace bottega
