#pragma once

#include <cstddef>
#include <vector>

namespace bottega {

// What is told of many values of one kind.
struct Distribution {
  size_t count = 0;
  double mean = 0, min = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};
// All zero for no values.
Distribution DistributionOf(std::vector<double> values);

// The value below which `share` (0 to 1) of the values lie; between two of them linearly, as numpy
// does. `sorted` is not empty.
double Quantile(const std::vector<double>& sorted, double share);

// Quantile 0.5 of values in any order; 0 of none.
double Median(std::vector<double> values);

}  // namespace bottega
