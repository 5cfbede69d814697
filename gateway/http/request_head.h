#pragma once

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "absl/status/status.h"
#include "gateway/http/http_server.h"
#include "gateway/reply.h"

namespace bottega::gateway {

using RequestParser = boost::beast::http::request_parser<boost::beast::http::string_body>;

// Everything that is decided before a body is taken: framing that two readers could read
// differently (request smuggling), limits of the head, the route's own check, what the body is.
// Fills `request` but for its body and id.
absl::Status ReadHead(const RequestParser& parser, const HttpHandlers& handlers,
                      HttpRequest& request);

}  // namespace bottega::gateway
