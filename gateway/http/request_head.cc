#include "gateway/http/request_head.h"

#include <fmt/format.h>

#include <boost/beast/core/string.hpp>
#include <charconv>
#include <string>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega::gateway {
namespace {

namespace http = boost::beast::http;

std::string Text(boost::beast::string_view s) { return std::string(s.data(), s.size()); }

absl::Status Malformed(std::string_view what) {
  return MakeError(Reason::kInvalidValue, fmt::format("malformed request: {}", what));
}

// What a second reader could read otherwise is refused (request smuggling).
absl::Status CheckFraming(const RequestParser& parser) {
  const auto& head = parser.get();
  const std::string target = Text(head.target());
  if (head.version() != 11 && head.version() != 10) return Malformed("HTTP version");
  if (target.empty() || target[0] != '/') return Malformed("the target must be a path");
  if (target.size() > limits::kRequestLineBytesMax) {
    return MakeError(Reason::kHeadersTooLarge, fmt::format("the request line is over {} bytes",
                                                           limits::kRequestLineBytesMax));
  }
  size_t count = 0, hosts = 0;
  for (const auto& field : head) {
    ++count;
    hosts += field.name() == http::field::host;
  }
  if (count > limits::kHeaderCountMax) {
    return MakeError(Reason::kHeadersTooLarge,
                     fmt::format("more than {} headers", limits::kHeaderCountMax));
  }
  if (hosts != 1 && head.version() == 11) return Malformed("exactly one Host is needed");
  const bool length = head.find(http::field::content_length) != head.end();
  const bool encoded = head.find(http::field::transfer_encoding) != head.end();
  if (length && encoded) return Malformed("Content-Length with Transfer-Encoding");
  if (encoded && !boost::beast::iequals(head[http::field::transfer_encoding], "chunked")) {
    return Malformed("Transfer-Encoding other than chunked");
  }
  if (encoded && head.version() == 10) return Malformed("Transfer-Encoding in HTTP/1.0");
  if (head.count(http::field::content_length) > 1) return Malformed("Content-Length twice");
  return absl::OkStatus();
}

absl::Status ReadTimeout(const std::string& text, int64_t& timeout_ms) {
  if (text.empty()) return absl::OkStatus();
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), timeout_ms);
  if (error == std::errc() && end == text.data() + text.size() && timeout_ms >= 1) {
    return absl::OkStatus();
  }
  return MakeError(Reason::kInvalidValue, "x-request-timeout-ms must be a positive integer",
                   "x-request-timeout-ms");
}

absl::Status CheckBody(const RequestParser& parser, bool takes_body) {
  const auto& head = parser.get();
  const std::string encoding = Text(head[http::field::content_encoding]);
  if (!encoding.empty() && encoding != "identity") {
    return MakeError(Reason::kUnsupportedMediaType, "Content-Encoding is not accepted");
  }
  // The parser has refused what is no number; one too long for 64 bits stays the largest.
  const std::string length = Text(head[http::field::content_length]);
  uint64_t bytes = 0;
  const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), bytes);
  if (error == std::errc::result_out_of_range || bytes > limits::kBodyBytesMax) {
    return MakeError(Reason::kBodyTooLarge,
                     fmt::format("the body is over {} bytes", limits::kBodyBytesMax));
  }
  if (!takes_body) return absl::OkStatus();
  if (length.empty() && !parser.chunked()) {
    return MakeError(Reason::kLengthRequired, "Content-Length is needed");
  }
  const std::string type = Text(head[http::field::content_type]);
  if (!boost::beast::iequals(type.substr(0, type.find_first_of("; ")), "application/json")) {
    return MakeError(Reason::kUnsupportedMediaType, "Content-Type must be application/json");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadHead(const RequestParser& parser, const HttpHandlers& handlers,
                      HttpRequest& request) {
  RETURN_IF_ERROR(CheckFraming(parser));
  const auto& head = parser.get();
  request.method = Text(head.method_string());
  const std::string target = Text(head.target());
  request.path = target.substr(0, target.find('?'));
  request.if_none_match = Text(head[http::field::if_none_match]);
  const RouteCheck route =
      handlers.check(request.method, request.path, Text(head[http::field::authorization]),
                     Text(head["x-api-key"]));
  if (!route.refusal.ok()) return route.refusal;
  RETURN_IF_ERROR(ReadTimeout(Text(head["x-request-timeout-ms"]), request.timeout_ms));
  return CheckBody(parser, route.takes_body);
}

}  // namespace bottega::gateway
