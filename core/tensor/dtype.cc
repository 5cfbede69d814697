#include "core/tensor/dtype.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/reason.h"

namespace bottega {

std::string_view Name(DType dtype) { return dtype == DType::kF32 ? "f32" : "bf16"; }

absl::StatusOr<DType> ParseDType(std::string_view name) {
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  return MakeError(Reason::kInvalidValue, absl::StrCat("unknown element type '", std::string(name),
                                                       "'; one of f32, bf16"));
}

}  // namespace bottega
