// What it costs to be seen: one event of the flight recorder, one observation of the data path, and
// the library's own histogram beside it.
#include <benchmark/benchmark.h>

#include "observability/flight_recorder.h"
#include "observability/metrics.h"

namespace bottega {
namespace {

void FlightRecord(benchmark::State& state) {
  FlightRecorder recorder;
  uint64_t sequence = 0;
  for (auto _ : state) {
    recorder.Record({.kind = FlightKind::kSent, .key = 1, .peer = 2, .a = ++sequence, .b = 8});
  }
}
BENCHMARK(FlightRecord);

void LoopObserve(benchmark::State& state) {
  metrics::LoopHistogram histogram(metrics::FineBuckets());
  double value = 1e-6;
  for (auto _ : state) {
    histogram.Observe(value);
    value = value > 1 ? 1e-6 : value * 1.1;
  }
}
BENCHMARK(LoopObserve);

void LibraryObserve(benchmark::State& state) {
  prometheus::Registry registry;
  prometheus::Histogram& histogram =
      metrics::AddHistogram(registry, "x", "", metrics::FineBuckets());
  double value = 1e-6;
  for (auto _ : state) {
    histogram.Observe(value);
    value = value > 1 ? 1e-6 : value * 1.1;
  }
}
BENCHMARK(LibraryObserve);

}  // namespace
}  // namespace bottega

BENCHMARK_MAIN();
