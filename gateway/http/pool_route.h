#pragma once

#include <functional>

#include "core/base/reason.h"
#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {

// Answers with what `make` gives on the text pool: for routes that touch text but no worker.
inline void AnswerOnPool(const RouteContext& context, HttpRequest request,
                         std::shared_ptr<Reply> reply,
                         absl::StatusOr<Json> (*make)(const GatewayService& gateway,
                                                      const std::string& body)) {
  GatewayService* gateway = context.gateway;  // its pool ends before it does
  const std::string id = request.request_id;
  const bool taken = gateway->pool().Submit([gateway, make, reply, request = std::move(request)] {
    absl::StatusOr<Json> answer = make(*gateway, request.body);
    const int code = answer.ok() ? 200 : RowOf(ReasonOf(answer.status())).http_status;
    gateway->metrics().Request(request.path, code);
    if (answer.ok()) {
      ReplyJson(*reply, 200, *answer, request.request_id);
    } else {
      ReplyError(*reply, answer.status(), request.request_id);
    }
  });
  if (taken) return;
  ReplyError(*reply, MakeError(Reason::kQueueFull, "too many prompts are being tokenized"), id,
             gateway->config().overload_status);
}

}  // namespace bottega::gateway
