#include "gateway/http/generate.h"

namespace bottega::gateway {

// POST /v1/chat/completions
void ServeChatCompletions(const RouteContext& context, HttpRequest request,
                          std::shared_ptr<Reply> reply) {
  GenerateOnLoop(context, Api::kChat, std::move(request), std::move(reply));
}

}  // namespace bottega::gateway
