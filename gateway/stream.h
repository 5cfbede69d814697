#pragma once

#include <memory>

#include "core/base/task.h"
#include "gateway/reply.h"
#include "gateway/request.h"

namespace bottega::gateway {

class GatewayService;

// The life of one request, from its body to the last byte of its answer: the gateway's data path.
Task<void> ServeStream(GatewayService& gateway, Api api, HttpRequest request,
                       std::shared_ptr<Reply> reply);

}  // namespace bottega::gateway
