#include "core/base/status.h"
#include "gateway/http/pool_route.h"
#include "gateway/shaped_fields.h"

namespace bottega::gateway {
namespace {

absl::StatusOr<Json> Detokenize(const GatewayService& gateway, const std::string& text) {
  ASSIGN_OR_RETURN(Json body, ParseRequestJson(text));
  if (!body.is_object() || !body.contains("tokens")) {
    return MakeError(Reason::kInvalidValue, "`tokens` is missing", "tokens");
  }
  const ModelText& model = gateway.model();
  if (auto name = body.find("model"); name != body.end() && name->is_string()) {
    if (*name != model.name) return ModelNotFound(name->get<std::string>());
  }
  std::vector<int32_t> ids;
  RETURN_IF_ERROR(ReadTokenIds("tokens", body["tokens"], model.vocab_size, ids));
  ASSIGN_OR_RETURN(std::string prompt, model.text->Decode(ids, false));
  return Json{{"prompt", std::move(prompt)}};
}

}  // namespace

// POST /detokenize
void ServeDetokenize(const RouteContext& context, HttpRequest request,
                     std::shared_ptr<Reply> reply) {
  AnswerOnPool(context, std::move(request), std::move(reply), Detokenize);
}

}  // namespace bottega::gateway
