#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/model/config.h"
#include "core/model/step_cost.h"
#include "core/tensor/dtype.h"
#include "core/tensor/weight_format.h"

namespace bottega {

// What is foretold: decode of so many sequences at once, and a prompt of so many tokens.
inline constexpr std::array<int64_t, 3> kPlannedBatches = {1, 8, 16};
inline constexpr int64_t kPlannedPrompt = 512;
// What a plan offers formats in. float32 is for tests of accuracy.
inline constexpr std::array<WeightFormat, 3> kPlannedFormats = {
    WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4};

// Parts of the floor that the engine reaches.
struct FloorShares {
  double prefill = 0;
  std::array<double, kPlannedBatches.size()> decode{};
  std::string source;  // for whoever reads the plan
};
// Without a measurement of one's own: what `bottega bench` has shown of EngGPT2's shape with random
// weights on two cores of an AVX-512 machine, rounded.
FloorShares TypicalShares(WeightFormat weights);

struct PlanQuestion {
  ModelConfig config;
  uint64_t memory_bytes = 0;
  DType row_type = DType::kBF16;
  MachineRates rates;
  int64_t context = 1024;                        // at which decode is foretold
  int64_t sequences = 8;                         // that shall fit at the recommended context
  std::optional<WeightFormat> packed_as;         // there is no other format to choose
  std::map<WeightFormat, FloorShares> measured;  // else typical ones
};

struct ContextRoom {
  int64_t context = 0;
  int64_t sequences = 0;  // that fit at once, all of that length
};

struct FormatPlan {
  WeightFormat weights{};
  std::string impossible;     // why the model cannot be stored so; then nothing below
  uint64_t weight_bytes = 0;  // packed
  int64_t room_bytes = 0;     // left for KV; negative: does not fit
  std::vector<ContextRoom> contexts;
  FloorShares shares;
  double prefill = 0;                                   // tokens a second
  std::array<double, kPlannedBatches.size()> decode{};  // likewise, all sequences

  bool fits() const { return impossible.empty() && room_bytes > 0; }
};

struct Recommendation {
  WeightFormat weights{};
  int64_t context = 0;
  int64_t sequences = 0;
  uint64_t kv_bytes = 0;
};

struct CapacityPlan {
  std::vector<FormatPlan> formats;  // kPlannedFormats
  std::optional<Recommendation> recommendation;
};

// Which format: the first of int8, int4, bf16 that leaves room for a conversation of 4096 tokens.
// int8 is close to bf16 and reads half of it; int4 loses more (docs/accuracy.md); bf16 is for
// models whose widths cannot be quantised. Which context: the longest of 4096, 8192, ... and the
// model's own that so many sequences fit in; the longest for one, if they do not.
CapacityPlan MakePlan(const PlanQuestion& question);

}  // namespace bottega
