#include "observability/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

namespace bottega {
namespace {

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The names between `before` and `after` that look like a metric.
void Collect(const std::string& text, const std::string& before, const std::string& after,
             const std::string& prefix, std::set<std::string>* names) {
  for (size_t at = 0; (at = text.find(before, at)) != std::string::npos;) {
    at += before.size();
    const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789", at);
    if (end == std::string::npos || text.compare(end, after.size(), after) != 0 || end == at) {
      continue;
    }
    names->insert(prefix + text.substr(at, end - at));
  }
}

// Names as they stand in the sources: literals that begin with bottega_, and the gateway's Name().
std::set<std::string> InSources() {
  std::set<std::string> names;
  for (const char* folder :
       {"core", "gateway", "router", "attention-worker", "expert-worker", "observability"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.path().extension() != ".cc") continue;
      const std::string text = ReadFile(entry.path());
      Collect(text, "\"bottega_", "\"", "bottega_", &names);
      Collect(text, "\"process_", "\"", "process_", &names);
      Collect(text, "\"vllm:", "\"", "vllm:", &names);
      if (std::string(folder) == "gateway") {
        Collect(text, "Name(\"", "\"", "bottega_gateway_", &names);
      }
    }
  }
  names.erase("bottega_gateway_");  // the prefix itself
  return names;
}

TEST(MetricsMd, ListsExactlyTheMetricsOfTheSources) {
  std::set<std::string> listed;
  const std::string text = ReadFile("observability/metrics.md");
  Collect(text, "`bottega_", "`", "bottega_", &listed);
  Collect(text, "`process_", "`", "process_", &listed);
  Collect(text, "`vllm:", "`", "vllm:", &listed);
  const std::set<std::string> used = InSources();
  ASSERT_GT(used.size(), 30u) << "run from the source tree";
  for (const std::string& name : used) EXPECT_TRUE(listed.contains(name)) << name << " not listed";
  for (const std::string& name : listed) EXPECT_TRUE(used.contains(name)) << name << " not emitted";
}

TEST(Buckets, Ascend) {
  for (const std::vector<double>& buckets :
       {metrics::TimeToFirstTokenBuckets(), metrics::InterTokenBuckets(),
        metrics::EndToEndBuckets(), metrics::FineBuckets(), metrics::RowBuckets(),
        metrics::ImbalanceBuckets(), metrics::TokenBuckets(40960)}) {
    EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
    EXPECT_EQ(std::set<double>(buckets.begin(), buckets.end()).size(), buckets.size());
  }
  EXPECT_EQ(metrics::TokenBuckets(40960).back(), 50000);
  EXPECT_EQ(metrics::TokenBuckets(1), std::vector<double>{1});
}

// The values of a scrape: (cumulative count of each bucket, sum).
std::pair<std::vector<uint64_t>, double> Scraped(prometheus::Histogram& series) {
  std::vector<uint64_t> counts;
  const prometheus::ClientMetric::Histogram shown = series.Collect().histogram;
  for (const auto& bucket : shown.bucket) counts.push_back(bucket.cumulative_count);
  return {counts, shown.sample_sum};
}

TEST(HistogramSeries, ShowsWhatTheLoopCountedAsTheLibraryWould) {
  prometheus::Registry registry;
  const std::vector<double> bounds{1, 2, 5};
  prometheus::Histogram& shown = metrics::AddHistogram(registry, "shown", "", bounds);
  prometheus::Histogram& expected = metrics::AddHistogram(registry, "expected", "", bounds);
  metrics::HistogramSeries series(shown);
  metrics::LoopHistogram counted(bounds);
  for (int scrape = 0; scrape < 3; ++scrape) {
    for (double value : {0.5, 1.0, 1.5, 2.0, 4.0, 5.0, 9.0}) {  // bounds belong to their bucket
      counted.Observe(value);
      expected.Observe(value);
    }
    series.RaiseTo(counted);
    EXPECT_EQ(Scraped(shown), Scraped(expected));
  }
  series.RaiseTo(counted);  // nothing new
  EXPECT_EQ(Scraped(shown), Scraped(expected));
}

TEST(HistogramSeries, ASourceThatBeganAnewAddsToWhatWas) {
  prometheus::Registry registry;
  prometheus::Histogram& shown = metrics::AddHistogram(registry, "shown", "", {1});
  metrics::HistogramSeries series(shown);
  metrics::LoopHistogram first({1}), second({1});
  first.Observe(3);
  first.Observe(4);
  second.Observe(7);
  series.RaiseTo(first);
  series.RaiseTo(second);
  EXPECT_EQ(Scraped(shown), std::pair(std::vector<uint64_t>{0, 3}, 14.0));
}

TEST(RaiseTo, NeverTakesACounterBack) {
  prometheus::Registry registry;
  prometheus::Counter& counter = metrics::AddCounter(registry, "c_total", "");
  metrics::RaiseTo(counter, 5);
  metrics::RaiseTo(counter, 3);
  EXPECT_EQ(counter.Value(), 5);
}

TEST(ProcessCollector, ReadsThisProcess) {
  std::map<std::string, double> values;
  for (const auto& family : metrics::ProcessCollector().Collect()) {
    values[family.name] = family.metric[0].counter.value + family.metric[0].gauge.value;
  }
  EXPECT_GT(values["process_resident_memory_bytes"], 1e5);
  EXPECT_GE(values["process_open_fds"], 3);
  EXPECT_GT(values["process_start_time_seconds"], 1.6e9);
  EXPECT_GE(values["process_cpu_seconds_total"], 0);
}

}  // namespace
}  // namespace bottega
