#include "gateway/http/routes.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/reason.h"
#include "gateway/error_body.h"
#include "gateway/http/api_key.h"
#include "gateway/page_files.h"

namespace bottega::gateway {
namespace {

struct RouteRow {
  std::string_view method;
  std::string_view path;
  RouteFunction serve;  // null: known, but not served
  bool open = false;    // needs no key
};

// clang-format off
constexpr RouteRow kRoutes[] = {
    {"POST", "/v1/chat/completions", ServeChatCompletions},
    {"POST", "/v1/completions", ServeCompletions},
    {"GET", "/v1/models", ServeModels},
    {"GET", "/v1/cluster", ServeCluster},
    {"POST", "/tokenize", ServeTokenize},
    {"POST", "/detokenize", ServeDetokenize},
    {"POST", "/v1/chat/completions/render", ServeRender},
    {"GET", "/live", ServeLive, true},
    {"GET", "/ready", ServeReady, true},
    {"GET", "/health", ServeReady, true},
    {"GET", "/ping", ServeReady, true},
    {"GET", "/version", ServeVersion},
    {"GET", "/metrics", ServeMetrics},
    // Routes of the same API that others serve.
    {"POST", "/v1/embeddings", nullptr},
    {"POST", "/v1/responses", nullptr},
    {"POST", "/v1/messages", nullptr},
    {"POST", "/v1/messages/count_tokens", nullptr},
    {"GET", "/health_generate", nullptr},
    {"POST", "/v1/moderations", nullptr},
    {"POST", "/v1/images/generations", nullptr},
    {"POST", "/v1/audio/speech", nullptr},
    {"POST", "/v1/audio/transcriptions", nullptr},
    {"POST", "/v1/audio/translations", nullptr},
    {"POST", "/v1/rerank", nullptr},
    {"POST", "/v1/score", nullptr},
    {"POST", "/pooling", nullptr},
    {"POST", "/classify", nullptr},
    {"GET", "/v1/files", nullptr},
    {"GET", "/v1/batches", nullptr},
};
// clang-format on

// /v1/models/{id}: ids may hold slashes.
constexpr RouteRow kModelRoute{"GET", "/v1/models/{id}", ServeModel};

// The page and its parts; they hold nothing secret, and who has no key yet is asked for it by them.
constexpr RouteRow kPageRoute{"GET", "/", ServePage, true};

const RouteRow* FindRoute(std::string_view path, bool web) {
  for (const RouteRow& row : kRoutes) {
    if (row.path == path) return &row;
  }
  constexpr std::string_view kModels = "/v1/models/";
  if (path.size() > kModels.size() && path.starts_with(kModels)) return &kModelRoute;
  if (web && FindPageFile(path) != nullptr) return &kPageRoute;
  return nullptr;
}

absl::Status CheckRoute(const RouteRow* row, std::string_view method) {
  if (row == nullptr) return MakeError(Reason::kRouteNotFound, "there is no such route");
  if (row->serve == nullptr) return MakeError(Reason::kNotSupported, "this route is not supported");
  const bool head = method == "HEAD" && row->method == "GET";
  if (row->method != method && !head) {
    return MakeError(Reason::kMethodNotAllowed, fmt::format("use {}", row->method));
  }
  return absl::OkStatus();
}

}  // namespace

HttpHandlers MakeHandlers(RouteContext context) {
  HttpHandlers handlers;
  handlers.check = [context](const std::string& method, const std::string& path,
                             const std::string& authorization, const std::string& api_key) {
    const RouteRow* row = FindRoute(path, context.gateway->config().web);
    RouteCheck check;
    // Unknown paths too: a stranger learns nothing.
    if (row == nullptr || !row->open) {
      check.refusal = CheckApiKey(context.gateway->config().api_keys, authorization, api_key);
    }
    if (check.refusal.ok()) check.refusal = CheckRoute(row, method);
    check.takes_body = method == "POST";
    if (!check.refusal.ok()) {
      context.gateway->metrics().Request(row == nullptr ? "other" : std::string(row->path),
                                         RowOf(ReasonOf(check.refusal)).http_status);
    }
    return check;
  };
  handlers.serve = [context](HttpRequest request, std::shared_ptr<Reply> reply) {
    const RouteRow* row = FindRoute(request.path, context.gateway->config().web);
    row->serve(context, std::move(request), std::move(reply));
  };
  return handlers;
}

}  // namespace bottega::gateway
