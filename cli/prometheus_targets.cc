#include "cli/prometheus_targets.h"

#include <nlohmann/json.hpp>

#include "cli/json_file.h"

namespace bottega {

absl::Status WritePrometheusTargets(const std::string& path,
                                    const std::vector<ProcessPlan>& plans) {
  nlohmann::ordered_json targets = nlohmann::ordered_json::array();
  for (const ProcessPlan& plan : plans) {
    const std::string role = plan.name.substr(0, plan.name.find('-'));
    targets.push_back({{"targets", {plan.admin_address}},
                       {"labels", {{"instance", plan.name}, {"component", role}}}});
  }
  return WriteJsonFile("--prometheus-targets", path, targets);
}

}  // namespace bottega
