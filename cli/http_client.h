#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/base/time.h"

namespace bottega {

struct Url {
  std::string host;  // an IPv6 address without its brackets
  std::string port;
  std::string prefix;  // "" or "/path"
  std::string text;    // as shown to people: http://host:port/path
};

// "http://127.0.0.1:8000", also without "http://" or with the "/v1" that OpenAI clients end in.
absl::StatusOr<Url> ParseUrl(std::string_view text);

struct HttpReply {
  int status = 0;
  bool event_stream = false;
  std::string body;  // of what is no event stream
};

// Requests to one server, one connection each, from one thread. Blocks until the reply has ended.
class HttpClient {
 public:
  // Bytes of an event stream; false: no more is wanted.
  using OnBytes = std::function<bool(std::string_view bytes)>;

  // `interrupt_fd`: a wait ends with Cancelled when this becomes readable; -1: nothing does that.
  HttpClient(Url url, std::string api_key, int interrupt_fd);

  const Url& url() const { return url_; }

  // Any status is a reply. Unavailable: nobody answers at the URL. Cancelled: interrupted.
  // DataLoss: the connection broke. DeadlineExceeded: silence for longer than a live server keeps.
  absl::StatusOr<HttpReply> Get(const std::string& path) const;
  // The same from a server that owes no long answer: `silence` is how long it may keep still.
  absl::StatusOr<HttpReply> Get(const std::string& path, Duration silence) const;
  absl::StatusOr<HttpReply> Post(const std::string& path, std::string json,
                                 const OnBytes& on_bytes) const;
  // Waits, as between two requests. Cancelled: interrupted.
  absl::Status Pause(std::chrono::milliseconds time) const;

 private:
  const Url url_;
  const std::string api_key_;
  const int interrupt_fd_;
};

}  // namespace bottega
