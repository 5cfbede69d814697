#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gateway/config.h"
#include "gateway/reply.h"

namespace bottega::gateway {

// What the framing needs to know of a route before it takes a body.
struct RouteCheck {
  absl::Status refusal;     // not ok: answered with it, the body is not read
  bool takes_body = false;  // a JSON body is expected
};

struct HttpHandlers {
  // Called on the HTTP thread with the head of a request, after the framing's own checks.
  // `authorization` and `api_key` are the two headers' values.
  std::function<RouteCheck(const std::string& method, const std::string& path,
                           const std::string& authorization, const std::string& api_key)>
      check;
  // A whole request; never waits.
  std::function<void(HttpRequest, std::shared_ptr<Reply>)> serve;
};

// HTTP/1.1 on one thread of its own: keep-alive, limits and timeouts of core/base/limits.h and the
// config, one request a connection at a time. A request that could be read in two ways is refused
// and its connection closed. Slow peers cost their connection, nobody else's time.
class HttpServer {
 public:
  // Listens at once; with config.share_port not before Listen.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const GatewayConfig& config,
                                                           HttpHandlers handlers);
  ~HttpServer();  // Stop

  int port() const;
  size_t connections() const;  // any thread
  // Hears clients when it returns. Once, before Drain and Stop.
  void Listen();
  // No new connections; the open ones end with the answer to what they asked. Who has connected
  // already is still heard.
  void Drain();
  // No new connections; the open ones go on.
  void StopAccepting();
  // Cuts all connections and joins the thread.
  void Stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bottega::gateway
