#include "core/kernels/moe_gate.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"

namespace bottega {
namespace {

bool IsFinite(const float* row, int64_t count) {
  return std::all_of(row, row + count, [](float x) { return x - x == 0.0f; });
}

// The k largest in [0, experts), ties to the lower id, as ascending ids. k passes of insertion into
// a list sorted by (logit descending, id ascending): a later equal logit goes behind.
void ChooseTop(const float* logits, int64_t experts, int64_t k, uint16_t* ids) {
  int64_t held = 0;
  for (int64_t e = 0; e < experts; ++e) {
    if (held == k && !(logits[e] > logits[ids[k - 1]])) continue;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && logits[e] > logits[ids[at - 1]]; --at) ids[at] = ids[at - 1];
    ids[at] = static_cast<uint16_t>(e);
  }
  std::sort(ids, ids + k);
}

void WeightRow(const Cpu& cpu, const MoeGateArgs& args, const float* logits, const uint16_t* ids,
               float* weights) {
  for (int64_t i = 0; i < args.top_k; ++i) weights[i] = logits[ids[i]];
  const float max = *std::max_element(weights, weights + args.top_k);
  float sum = static_cast<float>(cpu.primitives->exp_sum(
      {.x = weights, .count = args.top_k, .shift = max, .factor = 1.0f, .terms = weights}));
  if (!args.renormalise) {
    sum = static_cast<float>(cpu.primitives->exp_sum(
        {.x = logits, .count = args.experts, .shift = max, .factor = 1.0f, .terms = nullptr}));
  }
  for (int64_t i = 0; i < args.top_k; ++i) weights[i] = weights[i] / sum;
}

}  // namespace

int64_t MoeGate(const Cpu& cpu, const MoeGateArgs& args) {
  // One run of exp_sum, so that its f64 total is the f32 tree sum exactly.
  CHECK(args.top_k >= 1 && args.top_k <= args.experts && args.experts <= 4096);
  int64_t bad = 0;
  for (int64_t t = 0; t < args.tokens; ++t) {
    const float* logits = args.logits + t * args.experts;
    uint16_t* ids = args.ids + t * args.top_k;
    float* weights = args.weights + t * args.top_k;
    args.bad[t] = !IsFinite(logits, args.experts);
    if (args.bad[t]) {
      ++bad;
      for (int64_t i = 0; i < args.top_k; ++i) ids[i] = static_cast<uint16_t>(i);
      std::fill(weights, weights + args.top_k, 0.0f);
      continue;
    }
    ChooseTop(logits, args.experts, args.top_k, ids);
    WeightRow(cpu, args, logits, ids, weights);
  }
  return bad;
}

}  // namespace bottega
