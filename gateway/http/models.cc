#include "gateway/error_body.h"
#include "gateway/http/routes.h"

namespace bottega::gateway {
namespace {

Json ModelJson(const GatewayService& gateway) {
  const ModelText& model = gateway.model();
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "bottega"},
          {"root", model.root},
          {"parent", nullptr},
          {"max_model_len", gateway.context_tokens()}};
}

}  // namespace

// GET /v1/models: also with no worker.
void ServeModels(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  Json list = {{"object", "list"}, {"data", Json::array()}};
  list["data"].push_back(ModelJson(*context.gateway));
  ReplyJson(*reply, 200, list, request.request_id);
}

// GET /v1/models/{id}
void ServeModel(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  constexpr size_t kPrefix = std::string_view("/v1/models/").size();
  const std::string id = request.path.substr(kPrefix);
  if (id != context.gateway->model().name) {
    ReplyError(*reply, ModelNotFound(id), request.request_id);
    return;
  }
  ReplyJson(*reply, 200, ModelJson(*context.gateway), request.request_id);
}

}  // namespace bottega::gateway
