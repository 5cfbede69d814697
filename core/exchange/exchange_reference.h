#pragma once

#include "absl/functional/function_ref.h"
#include "core/exchange/dispatch.h"
#include "core/exchange/exchange_layout.h"

namespace bottega {

// What the exchange must give, said slowly: no workers, no frames, no order of arrival. Tests
// compare with it.

// An expert as a pure function of one row of R.
using ExpertFunction =
    absl::FunctionRef<void(LayerId layer, ExpertId expert, const std::byte* row, std::byte* out)>;

// reply_rows [tokens, top_k, hidden]: every token's row through each of its experts.
void ReferenceDispatch(const ExchangeShape& shape, const DispatchRequest& request,
                       ExpertFunction expert, std::byte* reply_rows);

// residual [tokens, hidden] += the weighted sum of each token's expert rows: acc = +0, then
// fma(weight, row, acc) in ascending expert id, then one addition, all in f32.
void ReferenceCombine(const ExchangeShape& shape, int32_t tokens, const std::byte* reply_rows,
                      const float* weights, float* residual);

}  // namespace bottega
