#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/supervisor.h"

namespace bottega {

// Writes the processes of a local cluster for Prometheus' file_sd_configs: admin address, name as
// `instance`, role as `component`. Replaces the file in one piece; Prometheus watches it.
absl::Status WritePrometheusTargets(const std::string& path, const std::vector<ProcessPlan>& plans);

}  // namespace bottega
