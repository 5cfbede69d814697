#include "core/model/packer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/pack_lock.h"
#include "core/model/pack_source.h"
#include "core/model/packed_format.h"
#include "core/model/refusal.h"
#include "core/model/region_writer.h"
#include "core/model/sha256.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kJournal[] = "journal";

absl::Status SystemError(const std::string& what) {
  return MakeError(Reason::kInternalError, what + ": " + std::strerror(errno));
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status WriteFile(const fs::path& path, std::string_view content) {
  Fd fd(::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644));
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

absl::Status SyncDirectory(const fs::path& dir) {
  Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) return SystemError("cannot sync " + dir.string());
  return absl::OkStatus();
}

std::string GiB(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GiB", static_cast<double>(bytes) / (1u << 30));
  return text;
}

// One run of PackModel, its lock held.
class Packing {
 public:
  Packing(const Checkpoint& checkpoint, const fs::path& out, const PackOptions& options)
      : checkpoint_(checkpoint),
        out_(out),
        partial_(out.string() + ".partial"),
        options_(options),
        plan_(PlanRegions(checkpoint.config(), options.weights)),
        sums_(plan_.size()),
        kept_(plan_.size(), false) {
    for (const Region& region : plan_) {
      total_ += region.bytes;
      uint64_t end = RoundUp(region.offset + region.bytes, kRegionAlignment);
      file_bytes_[region.file] = std::max(file_bytes_[region.file], end);
    }
    for (const ModelFile& file : checkpoint.files()) total_ += file.size();
  }

  absl::Status Run() {
    ASSIGN_OR_RETURN(std::string key, SourceKey(checkpoint_.dir(), options_.weights));
    RETURN_IF_ERROR(OpenPartial(key));
    RETURN_IF_ERROR(HashSources());
    RETURN_IF_ERROR(WriteRegions());
    // A source that changed meanwhile would leave a mixture of two models.
    ASSIGN_OR_RETURN(std::string key_after, SourceKey(checkpoint_.dir(), options_.weights));
    if (key_after != key)
      return RefuseModel(checkpoint_.dir().string(), ": changed while it was packed");
    return Finish();
  }

 private:
  // Makes or takes over the partial directory: files at full size, kept regions marked.
  absl::Status OpenPartial(const std::string& key) {
    std::error_code error;
    std::map<std::string, RegionSums> done;
    if (fs::exists(partial_, error)) done = ReadJournal(key);
    if (done.empty()) fs::remove_all(partial_, error);
    fs::create_directories(partial_, error);
    if (error) {
      return MakeError(Reason::kInternalError,
                       "cannot create " + partial_.string() + ": " + error.message());
    }
    RETURN_IF_ERROR(Reserve());
    KeepVerified(done);
    std::string journal = key + "\n";
    for (size_t i = 0; i < plan_.size(); ++i) {
      if (kept_[i]) journal += JournalLine(i);
    }
    RETURN_IF_ERROR(WriteFile(partial_ / kJournal, journal));
    journal_ = Fd(::open((partial_ / kJournal).c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (journal_.get() < 0) return SystemError("cannot open " + (partial_ / kJournal).string());
    return absl::OkStatus();
  }

  std::string JournalLine(size_t i) const {
    return json({{"name", plan_[i].name}, {"crc32c", sums_[i].crc32c}, {"sha256", sums_[i].sha256}})
               .dump() +
           "\n";
  }

  // First line: the key of the sources. Then a line a finished region; the last may be torn.
  std::map<std::string, RegionSums> ReadJournal(const std::string& key) const {
    std::map<std::string, RegionSums> done;
    auto text = ReadModelFile(partial_, kJournal, limits::kManifestBytesMax);
    if (!text.ok()) return done;
    size_t at = text->find('\n');
    if (at == std::string::npos || text->substr(0, at) != key) return done;
    while (at + 1 < text->size()) {
      size_t end = text->find('\n', at + 1);
      if (end == std::string::npos) break;
      json line = json::parse(text->substr(at + 1, end - at - 1), nullptr, false);
      at = end;
      if (!line.is_object() || !line.contains("name") || !line.contains("crc32c") ||
          !line.contains("sha256"))
        continue;
      if (!line["name"].is_string() || !line["crc32c"].is_number_unsigned() ||
          !line["sha256"].is_string())
        continue;
      done[line["name"]] = {line["crc32c"], line["sha256"]};
    }
    return done;
  }

  absl::Status Reserve() {
    uint64_t need = 16 << 20;
    for (const auto& [name, bytes] : file_bytes_) {
      struct stat info {};
      uint64_t have = ::stat((partial_ / name).c_str(), &info) == 0
                          ? static_cast<uint64_t>(info.st_blocks) * 512
                          : 0;
      need += bytes > have ? bytes - have : 0;
    }
    struct statvfs space {};
    if (::statvfs(partial_.c_str(), &space) != 0) return SystemError("cannot read the free space");
    uint64_t free = static_cast<uint64_t>(space.f_bavail) * space.f_frsize;
    if (need > free) {
      return MakeError(Reason::kInternalError, "not enough disk: " + out_.string() + " needs " +
                                                   GiB(need) + ", free are " + GiB(free));
    }
    for (const auto& [name, bytes] : file_bytes_) {
      Fd fd(::open((partial_ / name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
      if (fd.get() < 0) return SystemError("cannot create " + (partial_ / name).string());
      // Where the file system cannot reserve, a write may still fail later, as an error.
      if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP) {
        return SystemError("cannot reserve " + GiB(bytes) + " for " + (partial_ / name).string());
      }
      if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
        return SystemError("cannot size " + (partial_ / name).string());
      }
      files_.emplace(name, std::move(fd));
    }
    return absl::OkStatus();
  }

  void KeepVerified(const std::map<std::string, RegionSums>& done) {
    std::vector<std::byte> piece(4 << 20);
    for (size_t i = 0; i < plan_.size(); ++i) {
      auto it = done.find(plan_[i].name);
      if (it == done.end()) continue;
      auto file = ModelFile::Open(partial_, plan_[i].file);
      if (!file.ok()) continue;
      RegionSummer summer(plan_[i].name);
      bool readable = true;
      for (uint64_t at = 0; readable && at < plan_[i].bytes; at += piece.size()) {
        auto part = std::span(piece).first(std::min<uint64_t>(piece.size(), plan_[i].bytes - at));
        readable = file->ReadAt(plan_[i].offset + at, part).ok();
        summer.Update(part);
      }
      RegionSums sums = summer.Finish();
      if (!readable || sums.crc32c != it->second.crc32c || sums.sha256 != it->second.sha256)
        continue;
      sums_[i] = sums;
      kept_[i] = true;
      Advance(plan_[i].bytes);
    }
  }

  absl::Status HashSources() {
    for (const std::string& name : CopiedFiles(checkpoint_.dir())) {
      ASSIGN_OR_RETURN(std::string content,
                       ReadModelFile(checkpoint_.dir(), name, CopiedFileBytesMax(name)));
      RETURN_IF_ERROR(WriteFile(partial_ / name, content));
      manifest_.files.push_back({name, content.size(), Sha256Hex(content)});
    }
    for (const ModelFile& file : checkpoint_.files()) {
      ASSIGN_OR_RETURN(std::string sha256, Sha256OfFile(file));
      manifest_.sources.push_back({file.name(), file.size(), sha256});
      Advance(file.size());
    }
    return absl::OkStatus();
  }

  absl::Status WriteRegions() {
    int count = options_.threads > 0
                    ? options_.threads
                    : static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u));
    std::atomic<size_t> next{0};
    auto work = [&] {
      for (size_t i = next++; i < plan_.size() && ok_; i = next++) {
        if (!kept_[i]) WriteOne(i);
      }
    };
    std::vector<std::jthread> threads;
    for (int t = 1; t < count; ++t) threads.emplace_back(work);
    work();
    threads.clear();
    return status_;
  }

  absl::StatusOr<RegionSums> PackRegion(size_t i) {
    if (options_.faults) RETURN_IF_ERROR(FAULT_POINT(*options_.faults, "pack.region"));
    return WriteRegion(checkpoint_, plan_[i], options_.weights, files_.at(plan_[i].file).get());
  }

  void WriteOne(size_t i) {
    absl::StatusOr<RegionSums> sums = PackRegion(i);
    std::lock_guard lock(mutex_);
    if (!sums.ok()) {
      if (status_.ok()) status_ = sums.status();
      ok_ = false;
      return;
    }
    sums_[i] = *std::move(sums);
    std::string line = JournalLine(i);
    // A line that is lost only means that its region is packed again after a crash.
    [[maybe_unused]] ssize_t put = ::write(journal_.get(), line.data(), line.size());
    AdvanceLocked(plan_[i].bytes);
  }

  absl::Status Finish() {
    for (const auto& [name, fd] : files_) {
      if (::fsync(fd.get()) != 0) return SystemError("cannot write " + (partial_ / name).string());
    }
    manifest_.weights = options_.weights;
    manifest_.config = checkpoint_.config();
    manifest_.rope = MakeRopeTable(checkpoint_.config());
    manifest_.sums = sums_;
    std::string manifest = ManifestJson(manifest_);
    RETURN_IF_ERROR(WriteFile(partial_ / "manifest.json", manifest));
    RETURN_IF_ERROR(WriteFile(partial_ / "manifest.sha256", Sha256Hex(manifest) + "\n"));
    std::error_code error;
    fs::remove(partial_ / kJournal, error);
    RETURN_IF_ERROR(SyncDirectory(partial_));
    fs::rename(partial_, out_, error);
    if (error) {
      return MakeError(Reason::kInternalError, "cannot rename " + partial_.string() + " to " +
                                                   out_.string() + ": " + error.message());
    }
    return SyncDirectory(out_.parent_path());
  }

  void Advance(uint64_t bytes) {
    std::lock_guard lock(mutex_);
    AdvanceLocked(bytes);
  }
  void AdvanceLocked(uint64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_);
  }

  const Checkpoint& checkpoint_;
  const fs::path out_;
  const fs::path partial_;
  const PackOptions& options_;
  const std::vector<Region> plan_;
  std::map<std::string, uint64_t> file_bytes_;
  std::map<std::string, Fd> files_;
  Manifest manifest_;
  uint64_t total_ = 0;

  // One region each thread: element i belongs to the thread that took i.
  std::vector<RegionSums> sums_;
  std::vector<char> kept_;  // written before the threads start
  std::atomic<bool> ok_{true};

  std::mutex mutex_;
  absl::Status status_;
  Fd journal_{-1};
  uint64_t done_ = 0;
};

}  // namespace

absl::Status PackModel(const fs::path& dir, const fs::path& out, const PackOptions& options) {
  std::error_code error;
  fs::path target = fs::absolute(out).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "out/" and "out" are the same
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(dir));
  RETURN_IF_ERROR(CheckWeightFormat(checkpoint->config(), options.weights));
  fs::create_directories(target.parent_path(), error);
  ASSIGN_OR_RETURN(PackLock lock, PackLock::Acquire(target.string() + ".lock", options.wait));
  if (options.wait && IsPacked(target)) return absl::OkStatus();
  if (fs::exists(target, error)) {
    return MakeError(Reason::kInternalError,
                     target.string() + " exists; choose another directory or remove it");
  }
  return Packing(*checkpoint, target, options).Run();
}

bool IsPacked(const fs::path& dir) { return HasModelFile(dir, "manifest.json"); }

}  // namespace bottega
