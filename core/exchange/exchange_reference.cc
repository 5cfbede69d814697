#include "core/exchange/exchange_reference.h"

#include <cmath>
#include <cstring>

#include "core/tensor/bf16.h"

namespace bottega {
namespace {

float Element(const std::byte* row, size_t i, DType dtype) {
  if (dtype == DType::kBF16) {
    BF16 value;
    std::memcpy(&value, row + i * sizeof value, sizeof value);
    return Widen(value);
  }
  float value;
  std::memcpy(&value, row + i * sizeof value, sizeof value);
  return value;
}

}  // namespace

void ReferenceDispatch(const ExchangeShape& shape, const DispatchRequest& request,
                       ExpertFunction expert, std::byte* reply_rows) {
  for (size_t token = 0; token < static_cast<size_t>(request.tokens); ++token) {
    for (size_t k = 0; k < shape.top_k; ++k) {
      const size_t entry = token * shape.top_k + k;
      expert(request.layer, ExpertId{request.experts[entry]},
             request.rows + token * shape.row_bytes(), reply_rows + entry * shape.row_bytes());
    }
  }
}

void ReferenceCombine(const ExchangeShape& shape, int32_t tokens, const std::byte* reply_rows,
                      const float* weights, float* residual) {
  for (size_t token = 0; token < static_cast<size_t>(tokens); ++token) {
    for (size_t h = 0; h < shape.hidden; ++h) {
      float acc = 0;
      for (size_t k = 0; k < shape.top_k; ++k) {
        const size_t entry = token * shape.top_k + k;
        const float value = Element(reply_rows + entry * shape.row_bytes(), h, shape.row_type);
        acc = std::fma(weights[entry], value, acc);
      }
      residual[token * shape.hidden + h] += acc;
    }
  }
}

}  // namespace bottega
