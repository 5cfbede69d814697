#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {

// GET /version
void ServeVersion(const RouteContext&, HttpRequest request, std::shared_ptr<Reply> reply) {
  ReplyJson(*reply, 200, {{"version", BOTTEGA_VERSION}}, request.request_id);
}

}  // namespace bottega::gateway
