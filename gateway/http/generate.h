#pragma once

#include "gateway/http/routes.h"

namespace bottega::gateway {

// Hands a body to the loop, where its stream begins (gateway/stream.cc).
inline void GenerateOnLoop(const RouteContext& context, Api api, HttpRequest request,
                           std::shared_ptr<Reply> reply) {
  context.loop->Post([weak = context.service, api, request = std::move(request),
                      reply = std::move(reply)]() mutable {
    std::shared_ptr<GatewayService> gateway = weak.lock();
    if (gateway != nullptr) gateway->Generate(api, std::move(request), std::move(reply));
  });
}

}  // namespace bottega::gateway
