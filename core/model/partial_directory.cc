#include "core/model/partial_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/model/sha256.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;

absl::Status SystemError(const std::string& what) {
  return MakeError(Reason::kInternalError, what + ": " + std::strerror(errno));
}

absl::Status SyncDirectory(const fs::path& dir) {
  FileDescriptor fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return SystemError("cannot sync " + dir.string());
  return absl::OkStatus();
}

std::string GiB(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GiB", static_cast<double>(bytes) / (1u << 30));
  return text;
}

std::map<std::string, uint64_t> FileBytes(const std::vector<Region>& plan) {
  std::map<std::string, uint64_t> bytes;
  for (const Region& region : plan) {
    uint64_t end = RoundUp(region.offset + region.bytes, kRegionAlignment);
    bytes[region.file] = std::max(bytes[region.file], end);
  }
  return bytes;
}

}  // namespace

absl::StatusOr<PartialDirectory> PartialDirectory::Claim(const fs::path& out,
                                                         const std::function<void()>& wait) {
  std::error_code error;
  fs::path target = fs::absolute(out).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/" and "out" are the same
  fs::create_directories(target.parent_path(), error);
  ASSIGN_OR_RETURN(PackLock lock, PackLock::Acquire(target.string() + ".lock", wait));
  return PartialDirectory(std::move(target), std::move(lock));
}

absl::Status PartialDirectory::Make(const std::vector<Region>& plan, bool keep) {
  std::error_code error;
  if (fs::exists(out_, error)) {
    return MakeError(Reason::kInternalError,
                     out_.string() + " exists; choose another directory or remove it");
  }
  const std::map<std::string, uint64_t> file_bytes = FileBytes(plan);
  RETURN_IF_ERROR(CheckSpace(file_bytes));
  if (!keep) {
    begun_ = true;
    fs::remove_all(path_, error);
  }
  fs::create_directories(path_, error);
  if (error) {
    return MakeError(Reason::kInternalError,
                     "cannot create " + path_.string() + ": " + error.message());
  }
  for (const auto& [name, bytes] : file_bytes) {
    FileDescriptor fd(::open((path_ / name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (fd.get() < 0) return SystemError("cannot create " + (path_ / name).string());
    // Where the file system cannot reserve, a write may still fail later, as an error.
    if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP) {
      return SystemError("cannot reserve " + GiB(bytes) + " for " + (path_ / name).string());
    }
    if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
      return SystemError("cannot size " + (path_ / name).string());
    }
    files_.emplace(name, std::move(fd));
  }
  return absl::OkStatus();
}

absl::Status PartialDirectory::CheckSpace(const std::map<std::string, uint64_t>& file_bytes) const {
  uint64_t need = 16 << 20;
  for (const auto& [name, bytes] : file_bytes) {
    struct stat info {};
    uint64_t have = ::stat((path_ / name).c_str(), &info) == 0
                        ? static_cast<uint64_t>(info.st_blocks) * 512
                        : 0;
    need += bytes > have ? bytes - have : 0;
  }
  struct statvfs space {};
  const fs::path folder = path_.parent_path();
  if (::statvfs(folder.c_str(), &space) != 0) {
    return SystemError("cannot read the free space of " + folder.string());
  }
  uint64_t free = static_cast<uint64_t>(space.f_bavail) * space.f_frsize;
  if (need <= free) return absl::OkStatus();
  return MakeError(Reason::kInternalError, "not enough disk: " + out_.string() + " needs " +
                                               GiB(need) + ", free are " + GiB(free));
}

absl::Status PartialDirectory::Write(const std::string& name, std::string_view content) const {
  const fs::path path = path_ / name;
  FileDescriptor fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644));
  if (fd.get() < 0) return SystemError("cannot create " + path.string());
  while (!content.empty()) {
    ssize_t put = ::write(fd.get(), content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return SystemError("cannot write " + path.string());
    content.remove_prefix(static_cast<size_t>(put));
  }
  if (::fsync(fd.get()) != 0) return SystemError("cannot write " + path.string());
  return absl::OkStatus();
}

absl::Status PartialDirectory::WriteManifest(const Manifest& manifest) const {
  for (const auto& [name, fd] : files_) {
    if (::fsync(fd.get()) != 0) return SystemError("cannot write " + (path_ / name).string());
  }
  const std::string text = ManifestJson(manifest);
  RETURN_IF_ERROR(Write("manifest.json", text));
  return Write("manifest.sha256", Sha256Hex(text) + "\n");
}

absl::Status PartialDirectory::Publish() const {
  RETURN_IF_ERROR(SyncDirectory(path_));
  std::error_code error;
  fs::rename(path_, out_, error);
  if (error) {
    return MakeError(Reason::kInternalError, "cannot rename " + path_.string() + " to " +
                                                 out_.string() + ": " + error.message());
  }
  return SyncDirectory(out_.parent_path());
}

void PartialDirectory::Discard() const {
  if (!begun_) return;
  std::error_code error;
  fs::remove_all(path_, error);
}

}  // namespace bottega
