#include "core/service/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include "core/base/status.h"

namespace bottega {
namespace {

constexpr Duration kPause = std::chrono::milliseconds(100);
constexpr int kBacklog = 1024;
constexpr int kAcceptedAtOnce = 64;  // then others have their turn

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Addresses Resolve(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return {nullptr, freeaddrinfo};
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  const addrinfo hints{
      .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.empty() ? nullptr : host.c_str(), address.c_str() + colon + 1,
                                &hints, &found);
  return {error == 0 ? found : nullptr, freeaddrinfo};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(
    Loop& loop, NodeId node, const std::string& address,
    std::function<void(int fd)> on_connection) {
  std::unique_ptr<Listener> listener(new Listener(loop, node, std::move(on_connection)));
  RETURN_IF_ERROR(listener->Bind(address));
  listener->Watch();
  return listener;
}

Listener::~Listener() {
  if (fd_ < 0) return;
  loop_.UnwatchFd(fd_);
  close(fd_);
}

absl::Status Listener::Bind(const std::string& address) {
  const absl::Status refused = absl::UnavailableError(
      "cannot listen on " + address + " (in use, or not an address of this machine)");
  const Addresses found = Resolve(address);
  if (found == nullptr) return refused;
  fd_ = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  // A process that is started again takes over the port of its former life at once.
  setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  if (fd_ < 0 || bind(fd_, found->ai_addr, found->ai_addrlen) != 0 || listen(fd_, kBacklog) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return refused;
  }
  // The port is at the same place for IPv4 and IPv6.
  port_ = ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
  return absl::OkStatus();
}

void Listener::Watch() {
  loop_.WatchFd(fd_, [this] { Accept(); });
}

void Listener::Accept() {
  for (int i = 0; i < kAcceptedAtOnce; ++i) {
    const int connection = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection >= 0) {
      const int on = 1;
      setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      on_connection_(connection);
      continue;
    }
    if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) return;
    loop_.UnwatchFd(fd_);
    loop_.Spawn(node_, Resume(&loop_, alive_));
    return;
  }
}

Task<void> Listener::Resume(Loop* loop, std::weak_ptr<Alive> alive) {
  co_await loop->Sleep(kPause);
  if (const std::shared_ptr<Alive> still = alive.lock()) still->listener->Watch();
}

}  // namespace bottega
