#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "core/base/fault_point.h"

namespace bottega {

// One regular file of a model directory, open for reading. Reads say which file failed and why
// (I/O error, file shorter than it was), never a signal.
class ModelFile {
 public:
  ModelFile() = default;
  ModelFile(ModelFile&& other) noexcept { *this = std::move(other); }
  ModelFile& operator=(ModelFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(size_, other.size_);
    std::swap(faults_, other.faults_);
    std::swap(name_, other.name_);
    return *this;
  }
  ~ModelFile();

  // Opens `dir`/`name`. `name` is one path component: an index or manifest cannot lead elsewhere.
  // A link is followed into the directory itself or, as the hub's cache lays it out, into
  // ../../blobs of it; other targets, and anything that is no regular file (FIFO, device,
  // directory), are refused without being read.
  //
  // `faults`, if there are any, outlive the file: file.read is a read that fails with EIO,
  // file.short one that finds the file's end.
  static absl::StatusOr<ModelFile> Open(const std::filesystem::path& dir, std::string_view name,
                                        FaultPoints* faults = nullptr);

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }
  int fd() const { return fd_; }

  absl::Status ReadAt(uint64_t offset, std::span<std::byte> into) const;
  // The whole content; more than `bytes_max` is refused before it is read.
  absl::StatusOr<std::string> ReadAll(uint64_t bytes_max) const;

 private:
  // pread(2), or what a fault point makes of it.
  ssize_t Read(std::span<std::byte> into, uint64_t offset) const;

  int fd_ = -1;
  uint64_t size_ = 0;
  FaultPoints* faults_ = nullptr;
  std::string name_;
};

// Whether `dir` has an entry of that name, of whatever kind.
bool HasModelFile(const std::filesystem::path& dir, std::string_view name);

// Open + ReadAll.
absl::StatusOr<std::string> ReadModelFile(const std::filesystem::path& dir, std::string_view name,
                                          uint64_t bytes_max);

}  // namespace bottega
