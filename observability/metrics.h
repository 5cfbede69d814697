#pragma once

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <vector>

#include "observability/log.h"

// Names are those of metrics.md in this folder; a metric that is not there fails a test. Label sets
// are closed: no ids, paths or prompts (at most 2,000 series a process). Counters, gauges and
// histograms may be touched from any thread; look them up once, at start, never per event.
namespace bottega::metrics {

using Labels = std::map<std::string, std::string>;

// The bucket sets of the ecosystem, by what they measure. Seconds unless said.
const std::vector<double>& TimeToFirstTokenBuckets();  // T
const std::vector<double>& InterTokenBuckets();        // I
const std::vector<double>& EndToEndBuckets();          // E
const std::vector<double>& FineBuckets();              // X: 1-2.5-5 from 10 µs to 1 s
const std::vector<double>& RowBuckets();               // R: rows, 1 to 16384
const std::vector<double>& ImbalanceBuckets();         // B: max / mean
// N: tokens, 1-2-5 steps up to the first that is at least `context`.
std::vector<double> TokenBuckets(double context);

// One series each. The same name with other labels joins the same family. The reference is valid
// as long as the registry.
prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help, const Labels& labels = {});
prometheus::Gauge& AddGauge(prometheus::Registry& registry, const std::string& name,
                            const std::string& help, const Labels& labels = {});
prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help, const std::vector<double>& buckets,
                                    const Labels& labels = {});

struct BuildInfo {
  std::string version, revision, role, numerics_id;
};
// The metrics that every role has.
struct Common {
  Common(prometheus::Registry& registry, const BuildInfo& build);
  // Makes `log` count its lines here; this object outlives it.
  void CountLines(Logger& log);

  prometheus::Gauge& ready;                // 1 when /ready answers 200
  prometheus::Gauge& load_progress_ratio;  // 0 to 1
  prometheus::Gauge& model_load_seconds;

 private:
  prometheus::Counter* lines_[4];  // by LogLevel
};

// The standard process_* metrics, read from /proc at each scrape.
class ProcessCollector : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace bottega::metrics
