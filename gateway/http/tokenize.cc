#include <algorithm>

#include "core/base/status.h"
#include "gateway/http/pool_route.h"
#include "gateway/prompt.h"
#include "gateway/request_parser.h"

namespace bottega::gateway {
namespace {

// The chat form is a chat request without generation; the prompt form is one raw text.
absl::StatusOr<std::vector<int32_t>> Tokens(const GatewayService& gateway, const Json& body,
                                            const std::string& text) {
  const ModelText& model = gateway.model();
  const RequestBounds bounds{.vocab_size = model.vocab_size};
  if (body.contains("messages")) {
    ASSIGN_OR_RETURN(GenerateRequest request, ParseRequest(Api::kChat, text, bounds));
    if (request.model && *request.model != model.name) return ModelNotFound(*request.model);
    ASSIGN_OR_RETURN(RenderedChat chat, RenderChat(*model.text, gateway.config(), request));
    return EncodeChat(*model.text, chat);
  }
  if (!body.contains("prompt") || !body["prompt"].is_string()) {
    return MakeError(Reason::kInvalidValue, "`prompt` must be a string", "prompt");
  }
  ASSIGN_OR_RETURN(GenerateRequest request, ParseRequest(Api::kCompletion, text, bounds));
  if (request.model && *request.model != model.name) return ModelNotFound(*request.model);
  const GatewayText::EncodeAs as{.add_special_tokens = request.add_special_tokens.value_or(true)};
  return model.text->Encode(std::get<std::string>(request.prompts[0]), as);
}

absl::StatusOr<Json> Tokenize(const GatewayService& gateway, const std::string& text) {
  ASSIGN_OR_RETURN(Json body, ParseRequestJson(text));
  if (!body.is_object()) {
    return MakeError(Reason::kInvalidValue, "the body must be a JSON object");
  }
  bool strings = false;
  if (auto wanted = body.find("return_token_strs"); wanted != body.end() && !wanted->is_null()) {
    if (!wanted->is_boolean()) return WrongType("return_token_strs", "a boolean", *wanted);
    strings = wanted->get<bool>();
  }
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, Tokens(gateway, body, text));
  Json answer = {{"count", ids.size()},
                 {"max_model_len", gateway.context_tokens()},
                 {"tokens", ids},
                 {"token_strs", nullptr}};
  if (strings) {
    answer["token_strs"] = Json::array();
    for (int32_t id : ids) answer["token_strs"].push_back(gateway.model().text->Text(id));
  }
  return answer;
}

}  // namespace

// POST /tokenize
void ServeTokenize(const RouteContext& context, HttpRequest request, std::shared_ptr<Reply> reply) {
  AnswerOnPool(context, std::move(request), std::move(reply), Tokenize);
}

}  // namespace bottega::gateway
