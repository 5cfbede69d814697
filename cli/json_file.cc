#include "cli/json_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/base/reason.h"

namespace bottega {

namespace fs = std::filesystem;

absl::Status CheckJsonFile(const std::string& option, const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const auto wrong = [&](std::string_view why) {
    return MakeError(Reason::kInvalidValue, fmt::format("{} {}: {}", option, path, why));
  };
  std::error_code error;
  const fs::path file = fs::absolute(path, error);
  const fs::file_status there = fs::status(file, error);
  if (!file.has_filename() || fs::is_directory(there)) return wrong("a folder; give a file in it");
  if (fs::exists(there) && !fs::is_regular_file(there)) return wrong("no regular file");
  if (!fs::is_directory(file.parent_path(), error)) return wrong("no such folder");
  if (::access(file.parent_path().c_str(), W_OK | X_OK) != 0) return wrong(std::strerror(errno));
  return absl::OkStatus();
}

absl::Status WriteJsonFile(const std::string& option, const std::string& path,
                           const nlohmann::ordered_json& value) {
  const std::string beside = path + ".new";
  errno = 0;
  std::ofstream file(beside);
  file << value.dump(1) << "\n";
  file.close();
  std::error_code error(errno, std::generic_category());
  if (file) {
    fs::rename(beside, path, error);
    if (!error) return absl::OkStatus();
  }
  std::error_code removal;
  fs::remove(beside, removal);
  return MakeError(Reason::kInternalError,
                   fmt::format("{}: cannot write {}: {}", option, path, error.message()));
}

}  // namespace bottega
