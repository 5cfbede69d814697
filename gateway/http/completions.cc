#include "gateway/http/generate.h"

namespace bottega::gateway {

// POST /v1/completions
void ServeCompletions(const RouteContext& context, HttpRequest request,
                      std::shared_ptr<Reply> reply) {
  GenerateOnLoop(context, Api::kCompletion, std::move(request), std::move(reply));
}

}  // namespace bottega::gateway
