#include "gateway/error_body.h"

#include <fmt/format.h>

#include <chrono>

#include "core/base/reason.h"
#include "gateway/drain_rate.h"

namespace bottega::gateway {

Json ErrorJson(const absl::Status& error) {
  const ReasonRow& row = RowOf(ReasonOf(error));
  const std::string param = ParamOf(error);
  Json code, shown_param;
  if (!row.error_code.empty()) code = std::string(row.error_code);
  if (!param.empty()) shown_param = param;
  return {{"error",
           {{"message", std::string(error.message())},
            {"type", std::string(row.type)},
            {"param", std::move(shown_param)},
            {"code", std::move(code)}}}};
}

void ReplyError(Reply& reply, const absl::Status& error, const std::string& request_id,
                int overload_status) {
  const Reason reason = ReasonOf(error);
  int status = RowOf(reason).http_status;
  Headers headers = {{"Content-Type", "application/json"}, {"x-request-id", request_id}};
  if (status == 429 || status == 503) {
    const Duration wait = RetryAfterOf(error);
    headers.emplace_back("Retry-After",
                         std::to_string(std::chrono::ceil<std::chrono::seconds>(wait).count()));
    headers.emplace_back(
        "retry-after-ms",
        std::to_string(std::chrono::ceil<std::chrono::milliseconds>(wait).count()));
    if (reason == Reason::kQueueFull && overload_status != 0) status = overload_status;
  }
  if (status >= 500 || status == 429 || status == 408 || status == 409) {
    headers.emplace_back("x-should-retry", RowOf(reason).retryable ? "true" : "false");
  }
  if (status == 401) headers.emplace_back("WWW-Authenticate", "Bearer");
  reply.Whole(status, std::move(headers), DumpJson(ErrorJson(error)));
}

void ReplyJson(Reply& reply, int status, const Json& body, const std::string& request_id) {
  reply.Whole(status, {{"Content-Type", "application/json"}, {"x-request-id", request_id}},
              DumpJson(body));
}

absl::Status ModelNotFound(const std::string& name) {
  return MakeError(Reason::kModelNotFound, fmt::format("The model `{}` does not exist.", name),
                   "model");
}

absl::Status ContextLengthExceeded(int64_t context, int64_t output_tokens, int64_t prompt_tokens) {
  return MakeError(
      Reason::kContextLengthExceeded,
      fmt::format("This model's maximum context length is {} tokens. However, you requested {} "
                  "output tokens and your prompt contains at least {} input tokens, for a total of "
                  "at least {} tokens.",
                  context, output_tokens, prompt_tokens, output_tokens + prompt_tokens),
      "max_tokens");
}

}  // namespace bottega::gateway
