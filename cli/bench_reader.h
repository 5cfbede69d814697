#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cli/capacity_plan.h"

namespace bottega {

// What a plan takes from the file that `bottega bench --json` wrote.
struct BenchFigures {
  MachineRates rates;
  WeightFormat weights{};
  // Of works that were not measured: the typical ones.
  FloorShares shares;
};
// InvalidArgument names the file and what is wrong with it.
absl::StatusOr<BenchFigures> ReadBenchFigures(const std::string& path);
absl::StatusOr<BenchFigures> ParseBenchFigures(std::string_view text, const std::string& name);

}  // namespace bottega
