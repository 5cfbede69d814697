#include "gateway/http/routes.h"
#include "gateway/page_files.h"

namespace bottega::gateway {
namespace {

// Nothing from anywhere else, nothing inline, and no way from text to markup or script: what the
// model writes could not become either even if the page had a bug (docs/decisions/0031).
constexpr char kContentSecurityPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

// If-None-Match: a list of ETags, weak or not, or a star.
bool Knows(std::string_view if_none_match, std::string_view etag) {
  return if_none_match == "*" || if_none_match.find(etag) != std::string_view::npos;
}

}  // namespace

const PageFile* FindPageFile(std::string_view path) {
  for (const PageFile& file : PageFiles()) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

// GET /, /page/NAME: asked for anew each time, sent anew only after an upgrade.
void ServePage(const RouteContext&, HttpRequest request, std::shared_ptr<Reply> reply) {
  const PageFile& file = *FindPageFile(request.path);
  Headers headers = {{"Content-Type", std::string(file.type)},
                     {"ETag", std::string(file.etag)},
                     {"Cache-Control", "no-cache"},
                     {"Content-Security-Policy", kContentSecurityPolicy},
                     {"X-Content-Type-Options", "nosniff"},
                     {"Referrer-Policy", "no-referrer"},
                     {"Cross-Origin-Resource-Policy", "same-origin"},
                     {"x-request-id", request.request_id}};
  if (Knows(request.if_none_match, file.etag)) {
    reply->Whole(304, std::move(headers), "");
  } else {
    reply->Whole(200, std::move(headers), std::string(file.bytes));
  }
}

}  // namespace bottega::gateway
