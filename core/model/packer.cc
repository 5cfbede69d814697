#include "core/model/packer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/pack_source.h"
#include "core/model/partial_directory.h"
#include "core/model/refusal.h"
#include "core/model/region_sink.h"
#include "core/model/region_threads.h"
#include "core/model/region_writer.h"
#include "core/model/sha256.h"
#include "core/model/work_progress.h"

namespace bottega {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kJournal[] = "journal";

absl::Status SystemError(const std::string& what) {
  return MakeError(Reason::kInternalError, what + ": " + std::strerror(errno));
}

// One run of PackModel, its lock held.
class Packing {
 public:
  Packing(const Checkpoint& checkpoint, PartialDirectory& partial, const PackOptions& options)
      : checkpoint_(checkpoint),
        partial_(partial),
        options_(options),
        plan_(PlanRegions(checkpoint.config(), options.weights)),
        progress_(AllBytes(), options.progress),
        sums_(plan_.size()),
        kept_(plan_.size(), false) {}

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
  // Of the regions and of the sources, which are hashed.
  uint64_t AllBytes() const {
    uint64_t total = 0;
    for (const Region& region : plan_) total += region.bytes;
    for (const ModelFile& file : checkpoint_.files()) total += file.size();
    return total;
  }

  // Makes or takes over the partial directory: files at full size, kept regions marked.
  absl::Status OpenPartial(const std::string& key) {
    const std::map<std::string, RegionSums> done = ReadJournal(key);
    RETURN_IF_ERROR(partial_.Make(plan_, /*keep=*/!done.empty()));
    KeepVerified(done);
    std::string journal = key + "\n";
    for (size_t i = 0; i < plan_.size(); ++i) {
      if (kept_[i]) journal += JournalLine(i);
    }
    RETURN_IF_ERROR(partial_.Write(kJournal, journal));
    const fs::path path = partial_.path() / kJournal;
    journal_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (journal_.get() < 0) return SystemError("cannot open " + path.string());
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
    auto text = ReadModelFile(partial_.path(), kJournal, limits::kManifestBytesMax);
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

  void KeepVerified(const std::map<std::string, RegionSums>& done) {
    std::vector<std::byte> piece(4 << 20);
    for (size_t i = 0; i < plan_.size(); ++i) {
      auto it = done.find(plan_[i].name);
      if (it == done.end()) continue;
      auto file = ModelFile::Open(partial_.path(), plan_[i].file);
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
      progress_.Advance(plan_[i].bytes);
    }
  }

  absl::Status HashSources() {
    for (const std::string& name : CopiedFiles(checkpoint_.dir())) {
      ASSIGN_OR_RETURN(std::string content,
                       ReadModelFile(checkpoint_.dir(), name, CopiedFileBytesMax(name)));
      RETURN_IF_ERROR(partial_.Write(name, content));
      manifest_.files.push_back({name, content.size(), Sha256Hex(content)});
    }
    for (const ModelFile& file : checkpoint_.files()) {
      ASSIGN_OR_RETURN(std::string sha256, Sha256OfFile(file));
      manifest_.sources.push_back({file.name(), file.size(), sha256});
      progress_.Advance(file.size());
    }
    return absl::OkStatus();
  }

  absl::Status WriteRegions() {
    return ForEachRegion(options_.threads, plan_.size(),
                         [this](size_t i) { return kept_[i] ? absl::OkStatus() : WriteOne(i); });
  }

  absl::Status WriteOne(size_t i) {
    if (options_.faults) RETURN_IF_ERROR(FAULT_POINT(*options_.faults, "pack.region"));
    ASSIGN_OR_RETURN(sums_[i], WriteRegion(checkpoint_, plan_[i], options_.weights,
                                           partial_.FileOf(plan_[i]), options_.faults));
    const std::string line = JournalLine(i);
    // One write appends a whole line. A line that is lost only means that its region is packed
    // again after a crash.
    [[maybe_unused]] ssize_t put = ::write(journal_.get(), line.data(), line.size());
    progress_.Advance(plan_[i].bytes);
    return absl::OkStatus();
  }

  absl::Status Finish() {
    manifest_.weights = options_.weights;
    manifest_.config = checkpoint_.config();
    manifest_.rope = MakeRopeTable(checkpoint_.config());
    manifest_.sums = sums_;
    RETURN_IF_ERROR(partial_.WriteManifest(manifest_));
    std::error_code error;
    fs::remove(partial_.path() / kJournal, error);
    return partial_.Publish();
  }

  const Checkpoint& checkpoint_;
  PartialDirectory& partial_;
  const PackOptions& options_;
  const std::vector<Region> plan_;
  WorkProgress progress_;
  Manifest manifest_;
  FileDescriptor journal_{-1};

  // One region each thread: element i belongs to the thread that took i.
  std::vector<RegionSums> sums_;
  std::vector<char> kept_;  // written before the threads start
};

}  // namespace

absl::Status PackModel(const fs::path& dir, const fs::path& out, const PackOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(dir, options.faults));
  RETURN_IF_ERROR(CheckWeightFormat(checkpoint->config(), options.weights));
  ASSIGN_OR_RETURN(PartialDirectory partial, PartialDirectory::Claim(out, options.wait));
  if (options.wait && IsPacked(partial.out())) return absl::OkStatus();
  return Packing(*checkpoint, partial, options).Run();
}

bool IsPacked(const fs::path& dir) { return HasModelFile(dir, "manifest.json"); }

}  // namespace bottega
