#include "core/service/admin_http.h"

#include <fmt/format.h>
#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cmath>
#include <map>
#include <thread>

#include "core/base/fault_point.h"
#include "core/base/limits.h"

namespace bottega {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;

constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr auto kConnectionTimeout = std::chrono::seconds(10);
constexpr size_t kAdminHeaderBytesMax = 8 << 10;

struct Answer {
  http::status status = http::status::ok;
  std::string type = "application/json";
  std::string body;
};

// Families of one name from several registries become one: Prometheus refuses a name twice.
std::string Scrape(const std::vector<prometheus::Collectable*>& sources) {
  std::vector<prometheus::MetricFamily> families;
  std::map<std::string, size_t> index;
  for (prometheus::Collectable* source : sources) {
    for (prometheus::MetricFamily& family : source->Collect()) {
      auto [entry, added] = index.try_emplace(family.name, families.size());
      if (added) {
        families.push_back(std::move(family));
      } else {
        auto& metrics = families[entry->second].metric;
        metrics.insert(metrics.end(), std::make_move_iterator(family.metric.begin()),
                       std::make_move_iterator(family.metric.end()));
      }
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace

struct AdminHttp::Server {
  class Connection;

  Server(const AdminHttpOptions& options, const Health& health,
         std::vector<prometheus::Collectable*> metrics)
      : options(options), health(health), metrics(std::move(metrics)), acceptor(io) {}

  absl::Status Listen();
  void Accept();
  Answer Route(std::string_view method, std::string_view target) const;
#ifdef BOTTEGA_FAULT_POINTS
  Answer RouteFaults(std::string_view method, std::string_view plan) const;
#endif

  const AdminHttpOptions options;
  const Health& health;
  const std::vector<prometheus::Collectable*> metrics;
  asio::io_context io{1};
  tcp::acceptor acceptor;
  asio::steady_timer pause{io};
  int port = 0;
  size_t connections = 0;  // of the io thread
  std::thread thread;
};

// One request after another until the peer leaves, is silent too long or sends too much.
class AdminHttp::Server::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Server& server, tcp::socket socket)
      : server_(server), stream_(std::move(socket)), buffer_(kAdminHeaderBytesMax) {
    ++server_.connections;
  }
  ~Connection() { --server_.connections; }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kAdminHeaderBytesMax);
    parser_->body_limit(0);
    stream_.expires_after(kConnectionTimeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](beast::error_code error, size_t) {
                       if (!error) self->Write();
                     });
  }

 private:
  void Write() {
    const auto& request = parser_->get();
    const auto target = request.target();
    const auto method = request.method_string();
    Answer answer = server_.Route({method.data(), method.size()}, {target.data(), target.size()});
    response_ = {};
    response_.result(answer.status);
    response_.version(request.version());
    response_.set(http::field::content_type, answer.type);
    response_.set(http::field::cache_control, "no-store");
    response_.keep_alive(request.keep_alive());
    if (request.method() == http::verb::head) {
      response_.content_length(answer.body.size());
    } else {
      response_.body() = std::move(answer.body);
      response_.prepare_payload();
    }
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, size_t) {
                        if (!error && self->response_.keep_alive()) self->Read();
                      });
  }

  Server& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::response<http::string_body> response_;
};

absl::Status AdminHttp::Server::Listen() {
  beast::error_code error;
  const asio::ip::address address = asio::ip::make_address(options.host, error);
  if (error) return absl::InvalidArgumentError("admin host is no address: " + options.host);
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return absl::UnavailableError(fmt::format("admin HTTP cannot listen on {}:{}: {}", options.host,
                                              options.port, error.message()));
  }
  port = acceptor.local_endpoint().port();
  return absl::OkStatus();
}

void AdminHttp::Server::Accept() {
  acceptor.async_accept([this](beast::error_code error, tcp::socket socket) {
    if (error == asio::error::operation_aborted) return;
    if (!error && connections < limits::kAdminConnectionsMax) {
      std::make_shared<Connection>(*this, std::move(socket))->Read();
    }
    if (!error) return Accept();
    // Out of descriptors: asking again at once would spin.
    pause.expires_after(kAcceptPause);
    pause.async_wait([this](beast::error_code cancelled) {
      if (!cancelled) Accept();
    });
  });
}

#ifdef BOTTEGA_FAULT_POINTS
// POST /faults?PLAN arms, DELETE /faults?NAME disarms, GET /faults tells how often each armed point
// was passed.
Answer AdminHttp::Server::RouteFaults(std::string_view method, std::string_view plan) const {
  if (method == "POST") {
    const absl::Status armed = options.faults->Arm(plan);
    if (armed.ok()) return {http::status::ok, "text/plain", "armed\n"};
    return {http::status::bad_request, "text/plain", std::string(armed.message()) + "\n"};
  }
  if (method == "DELETE") {
    options.faults->Disarm(plan);
    return {http::status::ok, "text/plain", "disarmed\n"};
  }
  std::string lines;
  for (const auto& [name, hits] : options.faults->Hits())
    lines += fmt::format("{} {}\n", name, hits);
  return {http::status::ok, "text/plain", std::move(lines)};
}
#endif

Answer AdminHttp::Server::Route(std::string_view method, std::string_view target) const {
  const size_t mark = std::min(target.find('?'), target.size());
  const std::string_view query = target.substr(std::min(mark + 1, target.size()));
  target = target.substr(0, mark);
#ifdef BOTTEGA_FAULT_POINTS
  if (options.faults != nullptr && target == "/faults") return RouteFaults(method, query);
#endif
  if (method != "GET" && method != "HEAD") {
    return {http::status::method_not_allowed, "text/plain", "only GET\n"};
  }
  if (target == "/metrics") {
    return {http::status::ok, "text/plain; version=0.0.4; charset=utf-8", Scrape(metrics)};
  }
  if (target == "/flight" && options.flight) {
    return {http::status::ok, "application/json", options.flight(query)};
  }
  if (target == "/version") return {http::status::ok, "application/json", options.version_json};
  const Health::Snapshot now = health.Read();
  if (target == "/live") {
    if (now.live) return {http::status::ok, "application/json", R"({"status":"live"})"};
    return {http::status::service_unavailable, "application/json", R"({"status":"dead"})"};
  }
  if (target == "/ready" || target == "/health" || target == "/ping") {
    if (now.ready()) return {http::status::ok, "application/json", R"({"status":"ready"})"};
    return {http::status::service_unavailable, "application/json",
            fmt::format(R"({{"status":"{}","progress":{:.2f}}})", now.status,
                        std::floor(now.progress * 100) / 100)};
  }
  return {http::status::not_found, "text/plain",
          "/live /ready /health /ping /version /metrics /flight\n"};
}

void Health::SetLive(bool live) {
  absl::MutexLock lock(&mutex_);
  now_.live = live;
}

void Health::Set(std::string status) {
  absl::MutexLock lock(&mutex_);
  now_.status = std::move(status);
}

Health::Snapshot Health::Read() const {
  Snapshot now;
  {
    absl::MutexLock lock(&mutex_);
    now = now_;
  }
  now.live = now.live && !load_.Stalled(kLoadStallMax);
  now.progress = load_.expected() > 0 ? load_.ratio() : now.ready() ? 1 : 0;
  return now;
}

AdminHttp::AdminHttp(std::unique_ptr<Server> server) : server_(std::move(server)) {}

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(
    const AdminHttpOptions& options, const Health& health,
    std::vector<prometheus::Collectable*> metrics) {
  auto server = std::make_unique<Server>(options, health, std::move(metrics));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  server->Accept();
  server->thread = std::thread([io = &server->io] { io->run(); });
  return std::unique_ptr<AdminHttp>(new AdminHttp(std::move(server)));
}

AdminHttp::~AdminHttp() {
  server_->io.stop();
  server_->thread.join();
}

int AdminHttp::port() const { return server_->port; }
std::string AdminHttp::address() const {
  return fmt::format("{}:{}", server_->options.host, server_->port);
}

}  // namespace bottega
