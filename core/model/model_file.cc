#include "core/model/model_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/base/status.h"
#include "core/model/refusal.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

bool IsInside(const fs::path& file, const fs::path& dir) {
  auto [end, rest] = std::mismatch(dir.begin(), dir.end(), file.begin(), file.end());
  return end == dir.end() && rest != file.end();
}

// A link out of the directory could make a downloaded model name any file of this machine, whose
// content would then be copied into the packed directory.
absl::Status CheckLink(const fs::path& dir, std::string_view name) {
  std::error_code error;
  fs::path path = dir / name;
  if (fs::symlink_status(path, error).type() != fs::file_type::symlink) return absl::OkStatus();
  fs::path target = fs::canonical(path, error);
  if (error) return RefuseModel(std::string(name), ": a link that leads nowhere");
  fs::path home = fs::canonical(dir, error);
  if (error) return RefuseModel(dir.string(), ": ", error.message());
  fs::path blobs = home.parent_path().parent_path() / "blobs";
  if (IsInside(target, home) || IsInside(target, blobs)) return absl::OkStatus();
  return RefuseModel(std::string(name), ": a link to ", target.string(),
                     ", outside the model directory and the hub cache's blobs");
}

}  // namespace

ModelFile::~ModelFile() {
  if (fd_ >= 0) ::close(fd_);
}

absl::StatusOr<ModelFile> ModelFile::Open(const fs::path& dir, std::string_view name,
                                          FaultPoints* faults) {
  std::string text(name);
  if (text.empty() || text == "." || text == ".." || text.find('/') != std::string::npos ||
      text.find('\0') != std::string::npos) {
    return RefuseModel("\"", text, "\" is not a plain file name");
  }
  RETURN_IF_ERROR(CheckLink(dir, name));
  ModelFile file;
  file.name_ = text;
  file.faults_ = faults;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  file.fd_ = ::open((dir / text).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return RefuseModel((dir / text).string(), ": no such file");
    }
    return RefuseModel((dir / text).string(), ": ", std::strerror(errno));
  }
  struct stat info {};
  if (::fstat(file.fd_, &info) != 0) return RefuseModel(text, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return RefuseModel(text, ": not a regular file");
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

ssize_t ModelFile::Read(std::span<std::byte> into, uint64_t offset) const {
  if (faults_ != nullptr) {
    if (!FAULT_POINT(*faults_, "file.short").ok()) return 0;
    if (!FAULT_POINT(*faults_, "file.read").ok()) {
      errno = EIO;
      return -1;
    }
  }
  return ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
}

absl::Status ModelFile::ReadAt(uint64_t offset, std::span<std::byte> into) const {
  while (!into.empty()) {
    ssize_t got = Read(into, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return RefuseModel(name_, ": read error at byte ", offset, ": ", std::strerror(errno));
    if (got == 0)
      return RefuseModel(name_, ": ends at byte ", offset, ", it had ", size_,
                         " bytes when opened");
    offset += static_cast<uint64_t>(got);
    into = into.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ModelFile::ReadAll(uint64_t bytes_max) const {
  if (size_ > bytes_max) return RefuseModel(name_, ": ", size_, " bytes; the limit is ", bytes_max);
  std::string content(size_, '\0');
  RETURN_IF_ERROR(ReadAt(0, std::as_writable_bytes(std::span(content))));
  return content;
}

bool HasModelFile(const fs::path& dir, std::string_view name) {
  std::error_code error;
  return fs::symlink_status(dir / name, error).type() != fs::file_type::not_found;
}

absl::StatusOr<std::string> ReadModelFile(const fs::path& dir, std::string_view name,
                                          uint64_t bytes_max) {
  ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, name));
  return file.ReadAll(bytes_max);
}

}  // namespace bottega
