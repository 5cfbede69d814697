#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "attention-worker/config.h"
#include "cli/bench_work.h"
#include "core/service/options.h"
#include "core/service/worker_process.h"

namespace bottega {

// More is no measurement but a mistake.
inline constexpr double kMixedRequestsMax = 100'000;

struct BenchOptions {
  ModelOptions model;
  ComputeOptions compute;
  AttentionConfig attention;
  ByteCount kv_cache;
  std::string prefill = "512";
  std::string decode = "1,2,4,8,16,32";
  std::string context = std::to_string(kDecodePrompt);
  int64_t steps = 32;
  int64_t rounds = 3;
  Duration mixed = std::chrono::seconds(60);
  double mixed_rate = 0;
  double temperature = BenchRunner::Options{}.temperature;
  int64_t seed = 1;
  std::string json;
};

void AddBenchOptions(OptionTable& table, BenchOptions* options);

// What is to be measured, in this order. InvalidArgument, before anything heavy is opened: lists
// that are none, a mixed load that nobody can size, a file that cannot be written.
absl::StatusOr<std::vector<Work>> WorksOf(const BenchOptions& options);

// The mixed load, its lengths cut to a context that may be short. Its rate is 0 where it has yet to
// be found.
MixedLoad LoadOf(const BenchOptions& options, int64_t context);

// InvalidArgument, in what would be needed and what there is, if the KV cache that the works fill
// and the weights, of which each is read, exceed `memory_bytes` (0: not known): the kernel would
// end the process, or the disk would be measured.
absl::Status CheckBenchMemory(uint64_t kv_bytes, uint64_t weight_bytes, uint64_t memory_bytes);

// "1,2,4": whole numbers in [least, most], each once; "none": no number. InvalidArgument names
// `option`.
absl::StatusOr<std::vector<int64_t>> ParseCounts(std::string_view option, std::string_view text,
                                                 int64_t least, int64_t most);

}  // namespace bottega
