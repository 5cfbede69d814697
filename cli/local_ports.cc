#include "cli/local_ports.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <random>

#include "core/base/reason.h"

namespace bottega {

namespace {

constexpr int kPortLeast = 10'000;  // below are the well-known services
constexpr int kTries = 1'000;
constexpr size_t kAnswerBytesMax = 1024;  // of /ready: some 200

// The ports the kernel gives to outgoing connections and to who listens at port 0 begin here
// (ip(7), ip_local_port_range).
int EphemeralPortLeast() {
  int least = 0;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> least;
  return least;
}

// Port 0: any.
bool Bind(int fd, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

absl::StatusOr<int> BindOutsideEphemeral(int fd) {
  const int end = EphemeralPortLeast();
  if (end > kPortLeast) {
    std::random_device random;
    std::uniform_int_distribution<int> ports(kPortLeast, end - 1);
    for (int i = 0; i < kTries; ++i) {
      const int port = ports(random);
      if (Bind(fd, port)) return port;
    }
  }
  // This machine gives nearly all ports to connections.
  sockaddr_in address{};
  socklen_t length = sizeof address;
  if (!Bind(fd, 0) || getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return MakeError(Reason::kInternalError, "no free port on 127.0.0.1");
  }
  return ntohs(address.sin_port);
}

}  // namespace

absl::StatusOr<int> LocalPorts::Take() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return MakeError(Reason::kInternalError, "no socket: out of file descriptors?");
  held_.push_back(fd);
  return BindOutsideEphemeral(fd);
}

void LocalPorts::Release() {
  for (int fd : held_) close(fd);
  held_.clear();
}

absl::Status CheckFree(const std::string& host, int64_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool valid = inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1;
  const bool free = !valid || bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  if (free) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("cannot listen at {}:{}: the port is in use", host, port));
}

Readiness AskReady(const std::string& host, int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval limit{.tv_sec = 0, .tv_usec = 200'000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, host.c_str(), &address.sin_addr);
  if (address.sin_addr.s_addr == 0) address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string request = "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char piece[kAnswerBytesMax];
    ssize_t n = 0;
    while (answer.size() < kAnswerBytesMax && (n = recv(fd, piece, sizeof piece, 0)) > 0) {
      answer.append(piece, static_cast<size_t>(n));
    }
  }
  close(fd);
  if (answer.starts_with("HTTP/1.1 200")) return {.ready = true, .progress = 1};
  constexpr std::string_view kProgress = "\"progress\":";
  const size_t at = answer.find(kProgress);
  if (at == std::string::npos) return {};
  return {.progress = std::clamp(std::atof(answer.c_str() + at + kProgress.size()), 0.0, 1.0)};
}

Readiness AskReady(const std::string& address) {
  const size_t colon = address.rfind(':');
  return AskReady(address.substr(0, colon), std::atoi(address.c_str() + colon + 1));
}

}  // namespace bottega
