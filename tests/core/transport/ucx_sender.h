#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "core/base/check.h"
#include "core/transport/transport.h"

namespace bottega {

// What the fault test and its sender processes agree on: the frames, and how addresses are told
// over a socket.
inline constexpr size_t kSenderFrameBytes = 46'080;
inline constexpr int kSenderWindow = 8;  // frames under way without an acknowledgement

inline void WriteAll(int fd, const void* data, size_t size) {
  CHECK(write(fd, data, size) == static_cast<ssize_t>(size));
}
inline void SendString(int fd, const std::string& s) {
  const uint32_t size = static_cast<uint32_t>(s.size());
  WriteAll(fd, &size, sizeof size);
  WriteAll(fd, s.data(), s.size());
}
inline std::string ReceiveString(int fd) {
  uint32_t size = 0;
  CHECK(recv(fd, &size, sizeof size, MSG_WAITALL) == sizeof size);
  std::string s(size, '\0');
  CHECK(recv(fd, s.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size));
  return s;
}

// Frame and acknowledgement.
struct SenderHeader {
  uint64_t sender;
  uint64_t number;
};

inline absl::Status PostHeader(Transport& transport, EndpointId to, SenderHeader header,
                               size_t size) {
  auto frame = transport.Lease(size);
  CHECK(frame.ok());
  std::memset(frame->data(), static_cast<int>(header.number), size);
  std::memcpy(frame->data(), &header, sizeof header);
  return transport.Post(to, *std::move(frame));
}

}  // namespace bottega
