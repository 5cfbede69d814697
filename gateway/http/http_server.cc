#include "gateway/http/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <set>
#include <thread>

#include "core/base/reason.h"
#include "gateway/http/http_session.h"

namespace bottega::gateway {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

// For everything that is no client's connection; half of them where there are few.
constexpr size_t kReservedFds = 256;
constexpr Duration kAcceptPause = std::chrono::milliseconds(100);

size_t ConnectionsMax(size_t wanted) {
  rlimit fds{};
  if (getrlimit(RLIMIT_NOFILE, &fds) != 0) return wanted;
  return std::min(wanted, fds.rlim_cur - std::min(kReservedFds, fds.rlim_cur / 2));
}

}  // namespace

struct HttpServer::Impl {
  Impl(const GatewayConfig& c, HttpHandlers h)
      : config(c),
        handlers(std::move(h)),
        connections_max(ConnectionsMax(c.connections_max)),
        io(std::make_shared<boost::asio::io_context>(1)),
        work(io->get_executor()),
        acceptor(*io),
        accept_again(*io) {}

  absl::Status Bind();
  absl::Status Listen();
  void Accept();
  void AcceptQueued();
  void OnAccept(error_code error, tcp::socket socket);

  const GatewayConfig config;
  const HttpHandlers handlers;
  const size_t connections_max;
  std::shared_ptr<boost::asio::io_context> io;
  // The thread lives until Stop, also while nothing is open.
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work;
  tcp::acceptor acceptor;
  boost::asio::steady_timer accept_again;
  std::set<std::shared_ptr<HttpSession>> sessions;  // HTTP thread only
  std::atomic<size_t> session_count = 0;
  bool accepting = false;  // an accept is pending
  bool listening = false;
  bool draining = false;
  bool stopping = false;
  int port = 0;
  std::thread thread;
};

absl::Status HttpServer::Impl::Bind() {
  error_code error;
  const auto address = boost::asio::ip::make_address(config.host, error);
  const std::string at = fmt::format("{}:{}", config.host, config.port);
  if (error) return absl::InvalidArgumentError(fmt::format("{}: not an IP address", config.host));
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(config.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && config.share_port) {
    using ReusePort = boost::asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
    acceptor.set_option(ReusePort(true), error);
  }
  if (!error) acceptor.bind(endpoint, error);
  if (error) {
    return absl::UnavailableError(fmt::format("cannot listen on {}: {}", at, error.message()));
  }
  port = acceptor.local_endpoint().port();
  return config.share_port ? absl::OkStatus() : Listen();
}

absl::Status HttpServer::Impl::Listen() {
  listening = true;
  error_code error;
  acceptor.listen(tcp::acceptor::max_listen_connections, error);
  if (error) {
    return absl::UnavailableError(
        fmt::format("cannot listen on {}:{}: {}", config.host, port, error.message()));
  }
  return absl::OkStatus();
}

// At the cap accepting pauses: the kernel's queue holds the rest until a connection closes.
void HttpServer::Impl::Accept() {
  if (accepting || stopping || sessions.size() >= connections_max) return;
  accepting = true;
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    accepting = false;
    OnAccept(error, std::move(socket));
  });
}

void HttpServer::Impl::OnAccept(error_code error, tcp::socket socket) {
  if (stopping) return;
  if (error) {
    // Out of fds or memory: work goes on, accepting resumes.
    accept_again.expires_after(kAcceptPause);
    accept_again.async_wait([this](error_code) { Accept(); });
    return;
  }
  // Whose closing takes it out of the set; the pointer is filled in once there is one.
  auto self = std::make_shared<std::weak_ptr<HttpSession>>();
  auto on_closed = [this, self] {
    sessions.erase(self->lock());
    session_count = sessions.size();
    Accept();
  };
  auto session =
      std::make_shared<HttpSession>(io, std::move(socket), config, handlers, std::move(on_closed));
  *self = session;
  sessions.insert(session);
  session_count = sessions.size();
  session->Start();
  if (draining) session->Drain();
  Accept();
}

// Those in the kernel's queue would be reset when the acceptor closes: their handshake is done and
// their request may be on its way.
void HttpServer::Impl::AcceptQueued() {
  error_code error;
  acceptor.non_blocking(true, error);
  while (!error && sessions.size() < connections_max) {
    tcp::socket socket(*io);
    acceptor.accept(socket, error);
    if (!error) OnAccept(error, std::move(socket));
  }
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const GatewayConfig& config,
                                                              HttpHandlers handlers) {
  auto impl = std::make_unique<Impl>(config, std::move(handlers));
  absl::Status bound = impl->Bind();
  if (!bound.ok()) return bound;
  if (impl->listening) impl->Accept();
  impl->thread = std::thread([io = impl->io.get()] { io->run(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() { Stop(); }

int HttpServer::port() const { return impl_->port; }
size_t HttpServer::connections() const { return impl_->session_count; }

void HttpServer::Listen() {
  // Bound already, so nobody else can have the port; the acceptor is idle until Accept.
  if (impl_->Listen().ok()) {
    boost::asio::post(*impl_->io, [impl = impl_.get()] { impl->Accept(); });
  }
}

void HttpServer::Drain() {
  boost::asio::post(*impl_->io, [impl = impl_.get()] {
    if (std::exchange(impl->draining, true)) return;
    if (impl->listening) impl->AcceptQueued();
    impl->stopping = true;
    error_code ignored;
    impl->acceptor.close(ignored);
    impl->accept_again.cancel();
    const auto sessions = impl->sessions;  // some close at once
    for (const auto& session : sessions) session->Drain();
  });
}

void HttpServer::StopAccepting() {
  boost::asio::post(*impl_->io, [impl = impl_.get()] {
    impl->stopping = true;
    error_code ignored;
    impl->acceptor.close(ignored);
    impl->accept_again.cancel();
  });
}

void HttpServer::Stop() {
  if (!impl_->thread.joinable()) return;
  StopAccepting();
  boost::asio::post(*impl_->io, [impl = impl_.get()] {
    impl->work.reset();
    while (!impl->sessions.empty()) {
      std::shared_ptr<HttpSession> session = *impl->sessions.begin();
      session->Close();
    }
  });
  impl_->thread.join();  // ends once nothing is pending
  // What replies posted since.
  impl_->io->restart();
  impl_->io->poll();
}

}  // namespace bottega::gateway
