#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

// Histograms without a library: the bucket sets that everybody uses, and counts that one thread
// keeps for itself.
namespace bottega::metrics {

// The bucket sets of the ecosystem, by what they measure. Seconds unless said.
const std::vector<double>& TimeToFirstTokenBuckets();  // T
const std::vector<double>& InterTokenBuckets();        // I
const std::vector<double>& EndToEndBuckets();          // E
const std::vector<double>& FineBuckets();              // X: 1-2.5-5 from 10 µs to 1 s
const std::vector<double>& RowBuckets();               // R: rows, 1 to 16384
const std::vector<double>& ImbalanceBuckets();         // B: max / mean
// N: tokens, 1-2-5 steps up to the first that is at least `context`.
std::vector<double> TokenBuckets(double context);

// Observations of one thread, for the data path: a search in an array and two additions, no lock
// and nothing shared (bench/observability_bench.cc). It only grows; HistogramSeries shows it to a
// scrape.
class LoopHistogram {
 public:
  explicit LoopHistogram(const std::vector<double>& bounds)
      : bounds_(bounds), counts_(bounds.size() + 1) {}

  void Observe(double value) {
    const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    ++counts_[static_cast<size_t>(bucket)];
    sum_ += value;
  }

  const std::vector<double>& bounds() const { return bounds_; }    // ascending, inclusive
  const std::vector<uint64_t>& counts() const { return counts_; }  // [bounds + 1]
  double sum() const { return sum_; }

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;
  double sum_ = 0;
};

}  // namespace bottega::metrics
