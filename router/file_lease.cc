#include "router/file_lease.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/base/reason.h"

namespace bottega {
namespace {

constexpr uint64_t kMagic = 0x31657361656c7462;  // "btlease1"

// The whole file. Zeros: a lease that nobody ever had.
struct Record {
  std::atomic<uint64_t> magic;
  std::atomic<uint64_t> term;         // of the holder, or of the last one
  std::atomic<uint64_t> beat;         // moved by the holder
  std::atomic<uint64_t> locked_term;  // the term whose holder has the kernel's lock, or had it
  std::atomic<uint64_t> released;     // the term whose holder gave it up
};
static_assert(sizeof(Record) == 40 && std::atomic<uint64_t>::is_always_lock_free);

class FileLease final : public Lease {
 public:
  FileLease(Loop& loop, int fd, Record* record, Duration ttl)
      : loop_(loop), fd_(fd), record_(record), ttl_(ttl) {}
  ~FileLease() override {
    munmap(record_, sizeof(Record));
    close(fd_);  // with it the lock
  }

  Task<absl::StatusOr<std::optional<uint64_t>>> TryAcquire(uint64_t above) override {
    const absl::StatusOr<std::optional<uint64_t>> term = Claim(above);
    co_return term;
  }

  Task<absl::Status> Renew() override {
    if (record_->term != term_) {
      Unlock();
      co_return absl::AbortedError("another router holds the lease");
    }
    record_->beat.fetch_add(1);
    TakeLock();  // from one that stood still and is over now
    co_return absl::OkStatus();
  }

  Task<void> Release() override {
    if (term_ != 0 && record_->term == term_) record_->released = term_;
    term_ = 0;
    Unlock();
    co_return;
  }

 private:
  absl::StatusOr<std::optional<uint64_t>> Claim(uint64_t above) {
    uint64_t term = record_->term;
    if (term != 0 && term != term_ && !IsFree(term)) {
      Unlock();
      return std::optional<uint64_t>();
    }
    const uint64_t next = NextTerm(term, above);
    if (!record_->term.compare_exchange_strong(term, next)) {
      Unlock();
      return std::optional<uint64_t>();  // another was faster
    }
    term_ = next;
    record_->beat.fetch_add(1);
    TakeLock();
    return std::optional<uint64_t>(next);
  }

  bool IsFree(uint64_t term) {
    if (record_->released == term) return true;
    const uint64_t beat = record_->beat;
    if (std::pair(term, beat) != seen_) {
      seen_ = {term, beat};
      seen_at_ = loop_.Now();
    }
    if (loop_.Now() - seen_at_ >= ttl_) return true;
    // Its holder had the lock, and now it is ours to take: the process is gone.
    return Lock() && record_->locked_term == term;
  }

  bool Lock() {
    if (!locked_) {
      struct flock whole {
        .l_type = F_WRLCK, .l_whence = SEEK_SET
      };
      locked_ = fcntl(fd_, F_OFD_SETLK, &whole) == 0;
    }
    return locked_;
  }
  void TakeLock() {
    if (Lock()) record_->locked_term = term_;
  }
  void Unlock() {
    struct flock whole {
      .l_type = F_UNLCK, .l_whence = SEEK_SET
    };
    if (locked_) fcntl(fd_, F_OFD_SETLK, &whole);
    locked_ = false;
  }

  Loop& loop_;
  const int fd_;
  Record* const record_;
  const Duration ttl_;
  uint64_t term_ = 0;  // ours; 0: none
  bool locked_ = false;
  std::pair<uint64_t, uint64_t> seen_;  // term and beat of another, and since when
  Time seen_at_{};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Lease>> OpenFileLease(Loop& loop, std::string_view path,
                                                     Duration ttl) {
  const std::string name(path);
  const auto refuse = [&](const char* what) {
    return MakeError(Reason::kInvalidValue, fmt::format("--lease file:{}: {}", name, what));
  };
  const int fd = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return refuse(std::strerror(errno));
  struct stat info {};
  void* mapped = MAP_FAILED;
  // Growing a new file to its size is the same for all that do it at once.
  if (fstat(fd, &info) == 0 && (info.st_size == sizeof(Record) ||
                                (info.st_size == 0 && ftruncate(fd, sizeof(Record)) == 0))) {
    mapped = mmap(nullptr, sizeof(Record), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  auto* record = static_cast<Record*>(mapped);
  uint64_t none = 0;
  if (mapped == MAP_FAILED ||
      (!record->magic.compare_exchange_strong(none, kMagic) && none != kMagic)) {
    if (mapped != MAP_FAILED) munmap(mapped, sizeof(Record));
    close(fd);
    return refuse("not a lease file");
  }
  return std::make_unique<FileLease>(loop, fd, record, ttl);
}

}  // namespace bottega
