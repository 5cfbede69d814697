#include "core/base/status.h"
#include "gateway/http/pool_route.h"
#include "gateway/prompt.h"
#include "gateway/request_parser.h"

namespace bottega::gateway {
namespace {

absl::StatusOr<Json> Render(const GatewayService& gateway, const std::string& text) {
  const ModelText& model = gateway.model();
  ASSIGN_OR_RETURN(GenerateRequest request,
                   ParseRequest(Api::kChat, text, RequestBounds{.vocab_size = model.vocab_size}));
  if (request.model && *request.model != model.name) return ModelNotFound(*request.model);
  ASSIGN_OR_RETURN(RenderedChat chat, RenderChat(*model.text, gateway.config(), request));
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeChat(*model.text, chat));
  return Json{{"prompt", chat.text}, {"prompt_token_ids", std::move(ids)}};
}

}  // namespace

// POST /v1/chat/completions/render: the prompt a chat would be answered from.
void ServeRender(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  AnswerOnPool(context, std::move(request), std::move(reply), Render);
}

}  // namespace bottega::gateway
