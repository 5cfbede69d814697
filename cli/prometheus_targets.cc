#include "cli/prometheus_targets.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/reason.h"

namespace bottega {

absl::Status WritePrometheusTargets(const std::string& path,
                                    const std::vector<ProcessPlan>& plans) {
  nlohmann::ordered_json targets = nlohmann::ordered_json::array();
  for (const ProcessPlan& plan : plans) {
    const std::string role = plan.name.substr(0, plan.name.find('-'));
    targets.push_back({{"targets", {plan.admin_address}},
                       {"labels", {{"instance", plan.name}, {"component", role}}}});
  }
  const std::string beside = path + ".new";
  std::ofstream(beside) << targets.dump(1) << "\n";
  std::error_code error;
  std::filesystem::rename(beside, path, error);
  if (!error) return absl::OkStatus();
  return MakeError(Reason::kInvalidValue,
                   fmt::format("--prometheus-targets: cannot write {}", path));
}

}  // namespace bottega
