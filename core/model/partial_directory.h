#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/file_descriptor.h"
#include "core/model/pack_lock.h"
#include "core/model/packed_format.h"

namespace bottega {

// A packed directory that is being made: `out`.partial, renamed to `out` when it is whole. While
// this object lives, a lock (`out`.lock) keeps other processes out.
class PartialDirectory {
 public:
  // `wait`: PackLock::Acquire. Whoever held the lock may have made `out` meanwhile.
  static absl::StatusOr<PartialDirectory> Claim(const std::filesystem::path& out,
                                                const std::function<void()>& wait);

  const std::filesystem::path& out() const { return out_; }  // absolute
  const std::filesystem::path& path() const { return path_; }

  // The directory with the plan's files at their full size. An `out` that exists, and too little
  // space for what is not yet there, are errors before anything is touched. `keep`: what an earlier
  // process left is kept, else removed.
  absl::Status Make(const std::vector<Region>& plan, bool keep);
  int FileOf(const Region& region) const { return files_.at(region.file).get(); }

  // A small file, on disk when this returns.
  absl::Status Write(const std::string& name, std::string_view content) const;
  // The weights are on disk and the manifest beside them.
  absl::Status WriteManifest(const Manifest& manifest) const;
  absl::Status Publish() const;
  // Nothing is left of what Make(keep = false) has begun; what another process left before that
  // stays.
  void Discard() const;

 private:
  PartialDirectory(std::filesystem::path out, PackLock lock)
      : out_(std::move(out)), path_(out_.string() + ".partial"), lock_(std::move(lock)) {}
  absl::Status CheckSpace(const std::map<std::string, uint64_t>& file_bytes) const;

  std::filesystem::path out_;
  std::filesystem::path path_;
  PackLock lock_;
  bool begun_ = false;  // what lies at path_ is this object's alone
  std::map<std::string, FileDescriptor> files_;
};

}  // namespace bottega
