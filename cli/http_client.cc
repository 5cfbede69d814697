#include "cli/http_client.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <optional>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kConnectTimeout = std::chrono::seconds(5);
constexpr auto kWriteTimeout = std::chrono::seconds(30);
// A gateway says something every 15 s, also to a request that waits.
constexpr Duration kSilenceMax = std::chrono::seconds(120);

// One request and its reply over one connection.
class HttpCall {
 public:
  HttpCall(const Url& url, int interrupt_fd, Duration silence) : url_(url), silence_(silence) {
    buffer_.reserve(16 << 10);  // else it reads 512 bytes at a time
    if (interrupt_fd < 0) return;
    interrupt_.assign(dup(interrupt_fd));
    interrupt_.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code error) {
      if (error) return;
      interrupted_ = true;
      resolver_.cancel();
      stream_.cancel();
    });
  }

  absl::Status Connect() {
    tcp::resolver::results_type addresses;
    error_code error = Await([&](auto done) {
      resolver_.async_resolve(url_.host, url_.port, [&addresses, done](error_code e, auto found) {
        addresses = std::move(found);
        done(e);
      });
    });
    if (!error) {
      stream_.expires_after(std::min<Duration>(kConnectTimeout, silence_));
      error = Await([&](auto done) { stream_.async_connect(addresses, done); });
    }
    if (!error) return absl::OkStatus();
    if (interrupted_) return Interrupted();
    return absl::UnavailableError(
        fmt::format("nothing answers at {} ({})", url_.text, error.message()));
  }

  absl::Status Write(http::request<http::string_body> request) {
    stream_.expires_after(kWriteTimeout);
    const error_code error = Await([&](auto done) { http::async_write(stream_, request, done); });
    // A server that refuses the request by its headers may close before it has read the body: the
    // reply tells why.
    if (error && interrupted_) return Interrupted();
    return absl::OkStatus();
  }

  absl::StatusOr<HttpReply> Read(const HttpClient::OnBytes& on_bytes) {
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    stream_.expires_after(silence_);
    error_code error =
        Await([&](auto done) { http::async_read_header(stream_, buffer_, parser, done); });
    if (error) return Broken(error);
    HttpReply reply{.status = static_cast<int>(parser.get().result_int())};
    reply.event_stream = reply.status == 200 &&
                         parser.get()[http::field::content_type].starts_with("text/event-stream");
    char bytes[16 << 10];
    while (!parser.is_done()) {
      auto& body = parser.get().body();
      body.data = bytes;
      body.size = sizeof bytes;
      stream_.expires_after(silence_);
      error = Await([&](auto done) { http::async_read_some(stream_, buffer_, parser, done); });
      const std::string_view got(bytes, sizeof bytes - body.size);
      if (reply.event_stream) {
        if (!got.empty() && !on_bytes(got)) return reply;
      } else {
        reply.body += got.substr(0, limits::kClientBodyBytesMax - reply.body.size());
        if (reply.body.size() == limits::kClientBodyBytesMax) return reply;
      }
      if (error && error != http::error::need_buffer) return Broken(error);
    }
    return reply;
  }

 private:
  // Starts an operation and runs the loop until it has ended, by itself or cancelled.
  template <typename Start>
  error_code Await(Start start) {
    if (interrupted_) return asio::error::operation_aborted;
    std::optional<error_code> outcome;
    start([&outcome](error_code error, const auto&...) { outcome = error; });
    loop_.restart();  // it stops when it runs out of work
    while (!outcome) loop_.run_one();
    return *outcome;
  }

  static absl::Status Interrupted() { return absl::CancelledError("stopped"); }

  absl::Status Broken(error_code error) const {
    if (interrupted_) return Interrupted();
    if (error == beast::error::timeout) {
      return absl::DeadlineExceededError(
          fmt::format("no byte from {} for {} s", url_.text, silence_ / std::chrono::seconds(1)));
    }
    const bool ended = error == http::error::end_of_stream || error == http::error::partial_message;
    return absl::DataLossError(
        fmt::format("the connection to {} broke before the reply had ended{}", url_.text,
                    ended ? "" : " (" + error.message() + ")"));
  }

  const Url& url_;
  const Duration silence_;
  asio::io_context loop_{1};
  tcp::resolver resolver_{loop_};
  beast::tcp_stream stream_{loop_};
  asio::posix::stream_descriptor interrupt_{loop_};
  bool interrupted_ = false;
  beast::flat_buffer buffer_;
};

std::string HostHeader(const Url& url) {
  const bool v6 = url.host.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", url.host, v6 ? "]" : "", url.port);
}

absl::StatusOr<HttpReply> Call(const Url& url, int interrupt_fd,
                               http::request<http::string_body> request, const std::string& api_key,
                               const HttpClient::OnBytes& on_bytes, Duration silence) {
  request.set(http::field::host, HostHeader(url));
  request.set(http::field::user_agent, "bottega-chat");
  if (!api_key.empty()) request.set(http::field::authorization, "Bearer " + api_key);
  request.keep_alive(false);
  request.prepare_payload();
  HttpCall call(url, interrupt_fd, silence);
  RETURN_IF_ERROR(call.Connect());
  RETURN_IF_ERROR(call.Write(std::move(request)));
  return call.Read(on_bytes);
}

}  // namespace

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  const auto wrong = [text](std::string_view why) {
    return MakeError(Reason::kInvalidValue,
                     fmt::format("--url: \"{}\" {} (as http://127.0.0.1:8000)", text, why));
  };
  std::string_view rest = text;
  if (rest.starts_with("https://")) return wrong("is https, which the chat does not speak");
  if (rest.starts_with("http://")) rest.remove_prefix(7);
  Url url;
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view place = rest.substr(0, slash), prefix = rest.substr(slash);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (prefix.ends_with("/v1")) prefix.remove_suffix(3);
  url.prefix = prefix;
  const size_t bracket = place.starts_with('[') ? place.find(']') : 0;
  if (bracket == std::string_view::npos) return wrong("has no \"]\"");
  const size_t colon = place.find(':', bracket);
  url.host = place.substr(0, colon);
  if (bracket > 0) url.host = place.substr(1, bracket - 1);
  url.port = colon == std::string_view::npos ? "80" : place.substr(colon + 1);
  const std::string_view odd = " \t\r\n?#@";
  if (url.host.empty() || text.find_first_of(odd) != std::string_view::npos) {
    return wrong("is no address of a server");
  }
  unsigned port = 0;
  const auto [end, error] =
      std::from_chars(url.port.data(), url.port.data() + url.port.size(), port);
  if (error != std::errc() || end != url.port.data() + url.port.size() || port > 65535) {
    return wrong("has no port");
  }
  url.text = fmt::format("http://{}{}", HostHeader(url), url.prefix);
  return url;
}

HttpClient::HttpClient(Url url, std::string api_key, int interrupt_fd)
    : url_(std::move(url)), api_key_(std::move(api_key)), interrupt_fd_(interrupt_fd) {}

absl::StatusOr<HttpReply> HttpClient::Get(const std::string& path) const {
  return Get(path, kSilenceMax);
}

absl::StatusOr<HttpReply> HttpClient::Get(const std::string& path, Duration silence) const {
  http::request<http::string_body> request(http::verb::get, url_.prefix + path, 11);
  return Call(
      url_, interrupt_fd_, std::move(request), api_key_, [](auto) { return false; }, silence);
}

absl::Status HttpClient::Pause(std::chrono::milliseconds time) const {
  pollfd interrupt{.fd = interrupt_fd_, .events = POLLIN};  // poll ignores -1
  const bool pressed = poll(&interrupt, 1, static_cast<int>(time.count())) > 0;
  return pressed ? absl::CancelledError("stopped") : absl::OkStatus();
}

absl::StatusOr<HttpReply> HttpClient::Post(const std::string& path, std::string json,
                                           const OnBytes& on_bytes) const {
  http::request<http::string_body> request(http::verb::post, url_.prefix + path, 11);
  request.set(http::field::content_type, "application/json");
  request.set(http::field::accept, "text/event-stream");
  request.body() = std::move(json);
  return Call(url_, interrupt_fd_, std::move(request), api_key_, on_bytes, kSilenceMax);
}

}  // namespace bottega
