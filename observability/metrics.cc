#include "observability/metrics.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>

namespace bottega::metrics {

prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help, const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Gauge& AddGauge(prometheus::Registry& registry, const std::string& name,
                            const std::string& help, const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
}

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help, const std::vector<double>& buckets,
                                    const Labels& labels) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, buckets);
}

void RaiseTo(prometheus::Counter& counter, double value) {
  if (const double difference = value - counter.Value(); difference > 0) {
    counter.Increment(difference);
  }
}

void HistogramSeries::RaiseTo(const LoopHistogram& source) {
  const std::vector<uint64_t>& counts = source.counts();
  seen_.resize(counts.size());
  const bool anew = !std::ranges::equal(seen_, counts, std::ranges::less_equal());
  if (anew) {
    std::ranges::fill(seen_, 0);
    seen_sum_ = 0;
  }
  std::vector<double> increments(counts.size());
  for (size_t i = 0; i < counts.size(); ++i) {
    increments[i] = static_cast<double>(counts[i] - seen_[i]);
  }
  series_.ObserveMultiple(increments, source.sum() - seen_sum_);
  seen_ = counts;
  seen_sum_ = source.sum();
}

Common::Common(prometheus::Registry& registry, const BuildInfo& build)
    : ready(AddGauge(registry, "bottega_ready", "1 when this process is ready to serve.")),
      model_load_seconds(
          AddGauge(registry, "bottega_model_load_seconds", "How long loading the model took.")) {
  AddGauge(registry, "bottega_build_info", "1; what runs here is in the labels.",
           {{"version", build.version},
            {"revision", build.revision},
            {"role", build.role},
            {"numerics_id", build.numerics_id}})
      .Set(1);
  constexpr const char* kLevels[] = {"debug", "info", "warning", "error"};
  for (int level = 0; level < 4; ++level) {
    lines_[level] =
        &AddCounter(registry, "bottega_log_messages_total", "Lines logged, by level, shown or not.",
                    {{"level", kLevels[level]}});
  }
}

void Common::CountLines(Logger& log) {
  log.CountWith(
      [](void* self, LogLevel level) {
        static_cast<Common*>(self)->lines_[static_cast<int>(level)]->Increment();
      },
      this);
}

namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily One(std::string name, std::string help, MetricType type, double value) {
  MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  prometheus::ClientMetric metric;
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  family.metric.push_back(std::move(metric));
  return family;
}

size_t OpenFds() {
  DIR* dir = opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  size_t count = 0;
  while (const dirent* entry = readdir(dir)) count += entry->d_name[0] != '.';
  closedir(dir);
  return count > 0 ? count - 1 : 0;  // without the directory's own
}

// Fields of /proc/self/stat from the third on (the second may hold spaces): see proc(5).
struct ProcStat {
  double user_ticks = 0, system_ticks = 0, start_ticks = 0, virtual_bytes = 0, resident_pages = 0;
};
ProcStat ReadProcStat() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ProcStat stat;
  const size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return stat;
  std::istringstream fields(text.substr(after_name + 1));
  std::string field;
  for (int number = 3; fields >> field; ++number) {
    if (number == 14) stat.user_ticks = std::stod(field);
    if (number == 15) stat.system_ticks = std::stod(field);
    if (number == 22) stat.start_ticks = std::stod(field);
    if (number == 23) stat.virtual_bytes = std::stod(field);
    if (number == 24) stat.resident_pages = std::stod(field);
  }
  return stat;
}

double BootTimeSeconds() {
  std::ifstream file("/proc/stat");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("btime ")) return std::stod(line.substr(6));
  }
  return 0;
}

}  // namespace

std::vector<MetricFamily> LoadCollector::Collect() const {
  return {One("bottega_load_progress_ratio", "How much of the model is loaded, by bytes.",
              MetricType::Gauge, ratio_())};
}

std::vector<MetricFamily> ProcessCollector::Collect() const {
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const ProcStat stat = ReadProcStat();
  rlimit fds{};
  getrlimit(RLIMIT_NOFILE, &fds);
  return {
      One("process_cpu_seconds_total", "User and system CPU time.", MetricType::Counter,
          (stat.user_ticks + stat.system_ticks) / ticks),
      One("process_open_fds", "Open file descriptors.", MetricType::Gauge,
          static_cast<double>(OpenFds())),
      One("process_max_fds", "Limit of open file descriptors.", MetricType::Gauge,
          static_cast<double>(fds.rlim_cur)),
      One("process_virtual_memory_bytes", "Virtual memory.", MetricType::Gauge, stat.virtual_bytes),
      One("process_resident_memory_bytes", "Resident memory.", MetricType::Gauge,
          stat.resident_pages * static_cast<double>(sysconf(_SC_PAGESIZE))),
      One("process_start_time_seconds", "Start of the process, Unix time.", MetricType::Gauge,
          BootTimeSeconds() + stat.start_ticks / ticks),
  };
}

}  // namespace bottega::metrics
