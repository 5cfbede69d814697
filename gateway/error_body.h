#pragma once

#include <string>

#include "absl/status/status.h"
#include "gateway/json.h"
#include "gateway/reply.h"

namespace bottega::gateway {

// {"error": {message, type, param, code}} of core/base/reason.h.
Json ErrorJson(const absl::Status& error);

// Sends a refusal: its HTTP status, the error body, Retry-After where a retry may help.
// `overload_status` replaces 429 and 503 of a full queue where an operator wants one of them.
void ReplyError(Reply& reply, const absl::Status& error, const std::string& request_id,
                int overload_status = 0);

void ReplyJson(Reply& reply, int status, const Json& body, const std::string& request_id);

// The texts that clients look for.
absl::Status ModelNotFound(const std::string& name);
absl::Status ContextLengthExceeded(int64_t context, int64_t output_tokens, int64_t prompt_tokens);

}  // namespace bottega::gateway
