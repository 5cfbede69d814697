#include "core/model/pack_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/reason.h"

namespace bottega {

PackLock::~PackLock() {
  if (fd_ < 0) return;
  ::unlink(path_.c_str());
  ::close(fd_);
}

absl::StatusOr<PackLock> PackLock::Acquire(const std::filesystem::path& path,
                                           const std::function<void()>& wait) {
  bool told = false;
  for (;;) {
    int fd = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0) {
      return MakeError(Reason::kInternalError,
                       "cannot create " + path.string() + ": " + std::strerror(errno));
    }
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
      if (!wait) {
        ::close(fd);
        return MakeError(
            Reason::kInternalError,
            "another process is packing into this directory (" + path.string() + " is locked)");
      }
      if (!told) wait();
      told = true;
      while (::flock(fd, LOCK_EX) != 0 && errno == EINTR) {
      }
    }
    // The holder before us removes the file as it leaves; a lock on a removed file keeps nobody
    // out.
    struct stat held {};
    struct stat named {};
    if (::fstat(fd, &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
        held.st_ino == named.st_ino && held.st_dev == named.st_dev) {
      return PackLock(path, fd);
    }
    ::close(fd);
  }
}

}  // namespace bottega
