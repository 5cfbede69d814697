#include "cli/json_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "core/base/reason.h"

namespace bottega {

absl::Status WriteJsonFile(const std::string& option, const std::string& path,
                           const nlohmann::ordered_json& value) {
  const std::string beside = path + ".new";
  std::ofstream file(beside);
  file << value.dump(1) << "\n";
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(beside, path, error);
  if (file && !error) return absl::OkStatus();
  return MakeError(Reason::kInvalidValue, fmt::format("{}: cannot write {}", option, path));
}

}  // namespace bottega
