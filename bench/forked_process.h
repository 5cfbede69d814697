#pragma once

#include <sys/types.h>

#include <string>

#include "absl/functional/function_ref.h"

namespace bottega {

// A process that runs `body` with one end of a socket pair; the other end is fd(). Its body returns
// when that closes, which the destructor does and waits for; it dies with its parent. Fork before
// any thread starts.
class ForkedProcess {
 public:
  explicit ForkedProcess(absl::FunctionRef<void(int control)> body);
  ~ForkedProcess();
  ForkedProcess(const ForkedProcess&) = delete;
  ForkedProcess& operator=(const ForkedProcess&) = delete;
  int fd() const { return fd_; }

 private:
  pid_t child_ = -1;
  int fd_ = -1;
};

void WriteAll(int fd, const void* data, size_t size);
bool ReadAll(int fd, void* data, size_t size);  // false at the end
void WriteString(int fd, const std::string& s);
std::string ReadString(int fd);

}  // namespace bottega
