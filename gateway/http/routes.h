#pragma once

#include <memory>
#include <string>

#include "gateway/gateway_service.h"
#include "gateway/http/http_server.h"

namespace bottega::gateway {

// What every route is given.
struct RouteContext {
  std::weak_ptr<GatewayService> service;  // locked on the loop only
  GatewayService* gateway;                // what any thread may use of it
  Loop* loop;
};

// One route: a function that never waits. It runs on the HTTP thread.
using RouteFunction = void (*)(const RouteContext& context, HttpRequest request,
                               std::shared_ptr<Reply> reply);

void ServeChatCompletions(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeCompletions(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeModels(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeModel(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeTokenize(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeDetokenize(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeRender(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeLive(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeReady(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeVersion(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServePage(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeCluster(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);
void ServeMetrics(const RouteContext&, HttpRequest, std::shared_ptr<Reply>);

// The table of all routes behind the HTTP server: keys, methods, 404, 405, 501.
HttpHandlers MakeHandlers(RouteContext context);

}  // namespace bottega::gateway
