#include "core/service/grpc_listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace bottega::grpc_internal {
namespace {

// For what a process opens itself: streams to others, files; a quarter where there are few.
constexpr rlim_t kReservedFds = 64;
constexpr int kPauseMs = 100;
// A peer that does not take bytes for this long is gone; gRPC sets the same on its own sockets,
// from the keepalive's timeout.
constexpr int kUserTimeoutMs = 500;

// Whether another connection leaves enough fds for the rest of the process. The kernel gives the
// lowest free number, so the number says how many are open.
bool RoomForOne(int any_fd) {
  rlimit fds{};
  if (getrlimit(RLIMIT_NOFILE, &fds) != 0) return true;
  const int next = fcntl(any_fd, F_DUPFD_CLOEXEC, 0);
  if (next < 0) return false;
  close(next);
  const rlim_t most = fds.rlim_cur - std::min(kReservedFds, fds.rlim_cur / 4);
  return static_cast<rlim_t>(next) < most;
}

absl::StatusOr<int> Bind(const addrinfo& address) {
  const int fd = socket(address.ai_family, address.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // Accepted sockets inherit these.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof kUserTimeoutMs);
  if (fd >= 0 && bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0) {
    return fd;
  }
  const std::string why = std::strerror(errno);
  if (fd >= 0) close(fd);
  return absl::UnavailableError(why);
}

absl::StatusOr<int> PortOf(int fd) {
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return absl::UnavailableError("no address");
  }
  return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                           : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcListener>> GrpcListener::Listen(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return absl::InvalidArgumentError("no port in " + address);
  std::string host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError("cannot listen on " + address + ": " + gai_strerror(error));
  }
  const absl::StatusOr<int> fd = Bind(*found);
  freeaddrinfo(found);
  if (!fd.ok()) {
    return absl::UnavailableError("cannot listen on " + address + ": " +
                                  std::string(fd.status().message()));
  }
  const absl::StatusOr<int> port = PortOf(*fd);
  const int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!port.ok() || stop_fd < 0) {
    close(*fd);
    return absl::UnavailableError("cannot listen on " + address + ": " + std::strerror(errno));
  }
  return std::unique_ptr<GrpcListener>(new GrpcListener(*fd, stop_fd, *port));
}

GrpcListener::~GrpcListener() {
  const uint64_t one = 1;
  if (write(stop_fd_, &one, sizeof one) == sizeof one && thread_.joinable()) thread_.join();
  close(fd_);
  close(stop_fd_);
}

void GrpcListener::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> server) {
  server_ = std::move(server);
  thread_ = std::thread([this] { Run(); });
}

void GrpcListener::Run() {
  pollfd fds[2] = {{.fd = stop_fd_, .events = POLLIN}, {.fd = fd_, .events = POLLIN}};
  while (fds[0].revents == 0) {
    poll(fds, 2, -1);
    if (fds[1].revents != 0 && !Accept()) poll(fds, 1, kPauseMs);
  }
}

// False: out of fds.
bool GrpcListener::Accept() {
  if (!RoomForOne(fd_)) return false;
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.listener_fd = fd_;
  connection.fd = fd;
  server_->HandleNewConnection(&connection);
  return true;
}

}  // namespace bottega::grpc_internal
