#include "cli/distribution.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/check.h"

namespace bottega {

double Quantile(const std::vector<double>& sorted, double share) {
  CHECK(!sorted.empty());
  const double place = share * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Distribution DistributionOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return {.count = values.size(),
          .mean = sum / static_cast<double>(values.size()),
          .min = values.front(),
          .p50 = Quantile(values, 0.5),
          .p90 = Quantile(values, 0.9),
          .p99 = Quantile(values, 0.99),
          .max = values.back()};
}

double Median(std::vector<double> values) { return DistributionOf(std::move(values)).p50; }

}  // namespace bottega
