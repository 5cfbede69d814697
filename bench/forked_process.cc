#include "bench/forked_process.h"

#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

#include "core/base/check.h"

namespace bottega {

ForkedProcess::ForkedProcess(absl::FunctionRef<void(int control)> body) {
  int fds[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
  child_ = fork();
  CHECK(child_ >= 0);
  if (child_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(fds[0]);
    body(fds[1]);
    _exit(0);
  }
  close(fds[1]);
  fd_ = fds[0];
}

ForkedProcess::~ForkedProcess() {
  close(fd_);
  waitpid(child_, nullptr, 0);
}

void WriteAll(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = write(fd, at, size);
    CHECK(n > 0);
    at += n;
    size -= static_cast<size_t>(n);
  }
}

bool ReadAll(int fd, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = read(fd, at, size);
    if (n <= 0) return false;
    at += n;
    size -= static_cast<size_t>(n);
  }
  return true;
}

void WriteString(int fd, const std::string& s) {
  const uint32_t size = static_cast<uint32_t>(s.size());
  WriteAll(fd, &size, sizeof size);
  WriteAll(fd, s.data(), s.size());
}

std::string ReadString(int fd) {
  uint32_t size = 0;
  CHECK(ReadAll(fd, &size, sizeof size));
  std::string s(size, '\0');
  CHECK(ReadAll(fd, s.data(), size));
  return s;
}

}  // namespace bottega
