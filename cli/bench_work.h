#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/distribution.h"
#include "cli/generation_client.h"
#include "cli/mixed_load.h"
#include "core/kernels/cpu/cpu.h"
#include "core/model/step_cost.h"
#include "expert-worker/engine.h"

namespace bottega {

// Before a decode that asks for no other context; bench/peers gives llama.cpp as many.
inline constexpr int64_t kDecodePrompt = 16;

// Something that is measured.
struct Work {
  enum class Kind { kPrefill, kDecode };
  Kind kind = Kind::kPrefill;
  int64_t sequences = 1;
  int64_t prompt = kDecodePrompt;  // tokens of each sequence
  int64_t steps = 1;               // of a decode that are timed

  std::string Name() const;  // "prefill 512", "decode 8", "decode 8 at 4096"
  // Tokens for which one of its sequences needs room, where a step takes `chunk` tokens of prompts.
  int64_t TokensOfASequence(int64_t chunk) const;
};

// One measurement of a work, and what the machine could do just before or after: the better of the
// two, since whoever disturbs a measurement of the floor makes it too low.
struct Sample {
  MachineRates rates;
  StepCost cost;                         // of a step, or of the prompt
  double steps = 1;                      // of that cost
  double tokens = 0;                     // all sequences
  double seconds = 0;                    // of all tokens
  double floor_s = 0;                    // likewise
  std::vector<double> between_tokens_s;  // of a decode, one a step
  double experts = 0;  // of a decode: different ones of a layer that a step has hit

  double tokens_per_s() const { return tokens / seconds; }
  double floor_tokens_per_s() const { return tokens / floor_s; }
  double floor_share() const { return floor_s / seconds; }
};

struct MixedSample {
  MachineRates rates;
  size_t requests = 0;
  double seconds = 0;          // from the first moment to the last token
  double tokens = 0;           // generated
  Distribution first_token_s;  // from the moment at which a request came, waiting included
  Distribution between_tokens_s;
  double first_token_floor_s = 0;     // a prompt of median length alone
  double sequences = 0;               // beside which the median token came, itself included
  double between_tokens_floor_s = 0;  // a step of so many, at their mean context
};

// On a thread of its own: the loop turns meanwhile, or members of the cluster on it would take each
// other for dead.
Task<MachineRates> MeasureBesideLoop(Loop* loop, Cpu cpu);

// Measures with an engine that has nothing else to do. Prompts are random ids, so no two share a
// prefix. Everything given outlives it.
class BenchRunner {
 public:
  struct Options {
    int64_t vocab_size = 0;
    int64_t moe_layers = 0;
    int64_t prefill_chunk = 0;  // prompt tokens in one step
    double temperature = 1;
    uint64_t seed = 1;
  };
  // `experts` counts what the engine reads.
  BenchRunner(Loop& loop, GenerationClient& client, const StepCosts& costs,
              const ExpertStats& experts, Cpu cpu, Options options);

  Task<absl::StatusOr<Sample>> Run(Work work);
  Task<absl::StatusOr<MixedSample>> RunMixed(MixedLoad load);

 private:
  // As Sample::rates says, of the work since the last call (or BeginRates).
  Task<void> BeginRates();
  Task<MachineRates> EndRates();
  Task<absl::Status> Prefill(Work work, Sample* sample);
  Task<absl::Status> Decode(Work work, Sample* sample);
  GenerationRequest RandomRequest(int64_t prompt, int64_t tokens);
  // Requests on their way through a mixed load: the i-th has the key first_key + i.
  struct Offer {
    const std::vector<RequestArrival>* arrivals;
    uint64_t first_key;
    Time start;
  };
  Task<absl::Status> Serve(Offer offer, MixedSample* sample);
  void Summarise(const Offer& offer, MixedSample* sample) const;

  Loop& loop_;
  GenerationClient& client_;
  const StepCosts& costs_;
  const ExpertStats& experts_;
  const Cpu cpu_;
  const Options options_;
  std::mt19937_64 random_;
  uint64_t next_key_ = 1;
  std::optional<MachineRates> rates_;  // the last measured
};

}  // namespace bottega
