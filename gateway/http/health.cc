#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {

// GET /live: this process turns.
void ServeLive(const RouteContext&, HttpRequest request, std::shared_ptr<Reply> reply) {
  ReplyJson(*reply, 200, {{"status", "live"}}, request.request_id);
}

// GET /ready, /health, /ping: a request sent now would be served.
void ServeReady(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  const std::string status = context.gateway->status();
  ReplyJson(*reply, status == "ready" ? 200 : 503, {{"status", status}}, request.request_id);
}

}  // namespace bottega::gateway
