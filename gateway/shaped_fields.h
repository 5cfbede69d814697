#pragma once

#include "absl/status/status.h"
#include "gateway/request_fields.h"

namespace bottega::gateway {

// Fields that are more than one scalar. `value` is not null.
absl::Status ReadPrompt(GenerateRequest& request, const Json& value, const RequestBounds& bounds);
absl::Status ReadStop(GenerateRequest& request, const Json& value, const RequestBounds& bounds);
absl::Status ReadStopTokenIds(GenerateRequest& request, const Json& value,
                              const RequestBounds& bounds);
absl::Status ReadLogitBias(GenerateRequest& request, const Json& value,
                           const RequestBounds& bounds);
absl::Status ReadAllowedTokenIds(GenerateRequest& request, const Json& value,
                                 const RequestBounds& bounds);
absl::Status ReadBadWords(GenerateRequest& request, const Json& value, const RequestBounds& bounds);
absl::Status ReadStreamOptions(GenerateRequest& request, const Json& value,
                               const RequestBounds& bounds);
absl::Status ReadResponseFormat(GenerateRequest& request, const Json& value,
                                const RequestBounds& bounds);
absl::Status ReadTemplateKwargs(GenerateRequest& request, const Json& value,
                                const RequestBounds& bounds);
absl::Status ReadReasoningEffort(GenerateRequest& request, const Json& value,
                                 const RequestBounds& bounds);
absl::Status ReadRequestId(GenerateRequest& request, const Json& value,
                           const RequestBounds& bounds);

// Token ids: each from 0 to vocab_size - 1.
absl::Status ReadTokenIds(std::string_view name, const Json& value, int64_t vocab_size,
                          std::vector<int32_t>& ids);

// [A-Za-z0-9._-], 1 to 128 characters: what may be an id of a request.
bool IsRequestId(std::string_view text);

}  // namespace bottega::gateway
