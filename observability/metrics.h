#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "observability/histogram.h"
#include "observability/log.h"

// Names are those of metrics.md in this folder; a metric that is not there fails a test. Label sets
// are closed: no ids, paths or prompts (at most 2,000 series a process). Counters, gauges and
// histograms may be touched from any thread; look them up once, at start, never per event.
namespace bottega::metrics {

// What one process may show: closed label sets, so that a scrape stays small.
inline constexpr size_t kSeriesMax = 2000;
// Of which by layer and expert, and by peer, with --moe-metrics=detailed.
inline constexpr size_t kExpertSeriesMax = 1536;
inline constexpr size_t kPeersShownMax = 16;

using Labels = std::map<std::string, std::string>;

// One series each. The same name with other labels joins the same family. The reference is valid
// as long as the registry.
prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help, const Labels& labels = {});
prometheus::Gauge& AddGauge(prometheus::Registry& registry, const std::string& name,
                            const std::string& help, const Labels& labels = {});
prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help, const std::vector<double>& buckets,
                                    const Labels& labels = {});

// Brings a series up to a number that the loop counts for itself and that only grows. Called by
// the hooks of a scrape (core/service/scrape_hooks.h).
void RaiseTo(prometheus::Counter& counter, double value);

// The same for a LoopHistogram. A source that began anew (its peer came back) counts from zero.
class HistogramSeries {
 public:
  explicit HistogramSeries(prometheus::Histogram& series) : series_(series) {}
  void RaiseTo(const LoopHistogram& source);

 private:
  prometheus::Histogram& series_;
  std::vector<uint64_t> seen_;  // of the source, in the series already
  double seen_sum_ = 0;
};

// A histogram of the data path: the loop observes, a scrape's hook publishes.
class LoopSeries {
 public:
  LoopSeries(prometheus::Registry& registry, const std::string& name, const std::string& help,
             const std::vector<double>& buckets, const Labels& labels = {})
      : counts_(buckets), series_(AddHistogram(registry, name, help, buckets, labels)) {}
  void Observe(double value) { counts_.Observe(value); }
  void Publish() { series_.RaiseTo(counts_); }

 private:
  LoopHistogram counts_;
  HistogramSeries series_;
};

struct BuildInfo {
  std::string version, revision, role, numerics_id;
};
// The metrics that every role has.
struct Common {
  Common(prometheus::Registry& registry, const BuildInfo& build);
  // Makes `log` count its lines here; this object outlives it.
  void CountLines(Logger& log);

  prometheus::Gauge& ready;  // 1 when /ready answers 200
  prometheus::Gauge& model_load_seconds;

 private:
  prometheus::Counter* lines_[4];  // by LogLevel
};

// The standard process_* metrics, read from /proc at each scrape.
class ProcessCollector : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

// bottega_load_progress_ratio, asked for at each scrape: a loop that loads answers nobody.
class LoadCollector : public prometheus::Collectable {
 public:
  // `ratio`: 0 to 1; called on the thread that scrapes.
  explicit LoadCollector(std::function<double()> ratio) : ratio_(std::move(ratio)) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::function<double()> ratio_;
};

}  // namespace bottega::metrics
