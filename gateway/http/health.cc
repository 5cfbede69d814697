#include <cmath>

#include "core/base/load_progress.h"
#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {

// GET /live: this process turns.
void ServeLive(const RouteContext&, HttpRequest request, std::shared_ptr<Reply> reply) {
  ReplyJson(*reply, 200, {{"status", "live"}}, request.request_id);
}

// GET /ready, /health, /ping: a request sent now would be served. If not: why, and how far the
// weights are that this process loads, if it loads any.
void ServeReady(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  const std::string status = context.gateway->status();
  const LoadProgress* const load = context.gateway->context().load;
  Json body = {{"status", status}};
  if (status != "ready" && load != nullptr && load->expected() > 0) {
    body["progress"] = std::floor(load->ratio() * 100) / 100;
  }
  ReplyJson(*reply, status == "ready" ? 200 : 503, body, request.request_id);
}

}  // namespace bottega::gateway
