#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench_work.h"

namespace bottega {

// A work and all its measurements, one a round.
struct MeasuredWork {
  Work work;
  std::vector<Sample> samples;
};

// What is told of a work: medians over the rounds; of the gaps between tokens, over all of them.
struct WorkSummary {
  double tokens_per_s = 0, least = 0, most = 0;
  double floor_tokens_per_s = 0;
  double floor_share = 0;  // of each round's own floor
  double experts = 0;      // of a layer, that a decode step has hit
  Distribution between_tokens_s;
};
WorkSummary Summarise(const MeasuredWork& measured);

// All that `bottega bench` has found out.
struct BenchReport {
  std::string processor, isa;
  int threads = 0;
  std::string directory, model_type, weights, row_type, numerics_id, digest;
  int layers = 0;
  double temperature = 0;
  uint64_t packed_bytes = 0;
  MachineRates rates;  // at first
  double ready_s = 0;
  uint64_t pss_bytes = 0;
  std::vector<MeasuredWork> works;
  MixedLoad load;
  std::optional<MixedSample> mixed;
};

// The parts of the text, in their order; the rows of works one by one, as they are measured.
std::string HeadText(const BenchReport& report);
std::string WorkHeaderText();
std::string WorkText(const MeasuredWork& measured);
std::string MixedText(const MixedLoad& load, const MixedSample& sample);
std::string EndText(const BenchReport& report);

// Everything, every sample too. Its "tokens_per_s" is what bench/peers reads, "works" what
// `bottega plan --bench` reads; units are in the names.
nlohmann::ordered_json BenchJson(const BenchReport& report);

nlohmann::ordered_json RatesJson(const MachineRates& rates);

// "512 ms", "1.25 s": three digits.
std::string TimeText(double seconds);

// "read 33.1 GB/s, f32 345 GFLOP/s, int8 1480 GOP/s".
std::string RatesText(const MachineRates& rates);

}  // namespace bottega
