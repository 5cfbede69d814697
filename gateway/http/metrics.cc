#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "gateway/http/routes.h"

namespace bottega::gateway {

// GET /metrics: everything in the registry this gateway was given.
void ServeMetrics(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  const prometheus::TextSerializer serializer;
  reply->Whole(200,
               {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"},
                {"x-request-id", request.request_id}},
               serializer.Serialize(context.gateway->context().metrics.Collect()));
}

}  // namespace bottega::gateway
