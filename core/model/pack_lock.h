#pragma once

#include <filesystem>
#include <functional>

#include "absl/status/statusor.h"

namespace bottega {

// An advisory lock held by an open file: it ends with the process, however that ends. The file is
// removed when the lock is given back.
class PackLock {
 public:
  PackLock(PackLock&& other) noexcept : path_(std::move(other.path_)), fd_(other.fd_) {
    other.fd_ = -1;
  }
  PackLock& operator=(PackLock&&) = delete;
  ~PackLock();

  // Held by another process: `wait` empty fails at once; else calls it once and waits.
  static absl::StatusOr<PackLock> Acquire(const std::filesystem::path& path,
                                          const std::function<void()>& wait);

 private:
  PackLock(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::filesystem::path path_;
  int fd_;
};

}  // namespace bottega
