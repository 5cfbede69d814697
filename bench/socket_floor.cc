#include "bench/socket_floor.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>

#include "bench/forked_process.h"
#include "bench/frame_link.h"
#include "core/base/check.h"

namespace bottega {
namespace {

using Clock = std::chrono::steady_clock;

double MicrosecondsSince(Clock::time_point then) {
  return std::chrono::duration<double, std::micro>(Clock::now() - then).count();
}

}  // namespace

void ServeWakeUps(int control) {
  char byte;
  while (ReadAll(control, &byte, 1)) WriteAll(control, &byte, 1);
}

void WakeUpRoundTrips(int control, int rounds, std::vector<double>* times) {
  char byte = 0;
  for (int i = 0; i < rounds; ++i) {
    const Clock::time_point sent = Clock::now();
    WriteAll(control, &byte, 1);
    CHECK(ReadAll(control, &byte, 1));
    times->push_back(MicrosecondsSince(sent));
  }
}

void ServeSocket(int control) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK(listen(listener, 1) == 0);
  socklen_t length = sizeof address;
  CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  WriteString(control, std::string(reinterpret_cast<char*>(&address), sizeof address));
  const int fd = accept(listener, nullptr, nullptr);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  std::vector<char> bytes(kMessageBytesMax);
  uint32_t size = 0;
  while (ReadAll(fd, &size, sizeof size) && size <= bytes.size() &&
         ReadAll(fd, bytes.data(), size)) {
    WriteAll(fd, bytes.data(), size);
  }
}

int ConnectSocket(int control) {
  sockaddr_in address;
  const std::string told = ReadString(control);
  std::memcpy(&address, told.data(), sizeof address);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

void SocketRoundTrips(int fd, size_t size, int rounds, std::vector<double>* times) {
  std::vector<char> bytes(sizeof(uint32_t) + size);
  const uint32_t told = static_cast<uint32_t>(size);
  std::memcpy(bytes.data(), &told, sizeof told);
  for (int i = 0; i < rounds; ++i) {
    const Clock::time_point sent = Clock::now();
    WriteAll(fd, bytes.data(), bytes.size());
    CHECK(ReadAll(fd, bytes.data() + sizeof told, size));
    times->push_back(MicrosecondsSince(sent));
  }
}

}  // namespace bottega
