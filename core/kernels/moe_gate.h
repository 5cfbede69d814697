#pragma once

#include <cstdint>

#include "core/kernels/cpu/cpu.h"

namespace bottega {

// Chooses each token's experts from its router logits.
//
// The top_k largest logits, ties to the lower expert id (the choice is made on f32 logits: no exp
// in it), then sorted by id ascending: the order of the exchange and of the sum in combine.h.
// renormalise (norm_topk_prob): weight[i] = Exp(l[i] - max) / sum over the chosen ones; else over
// all experts (softmax probabilities kept as they are). The sum: term i (in ascending id) goes to
// lane i mod 16, ascending, lanes added by the fixed tree; one division per weight. All f32.
struct MoeGateArgs {
  const float* logits = nullptr;  // [tokens, experts], contiguous
  int64_t tokens = 0;
  int64_t experts = 0;
  int64_t top_k = 0;  // 1..experts
  bool renormalise = true;
  uint16_t* ids = nullptr;   // [tokens, top_k], ascending in a row
  float* weights = nullptr;  // [tokens, top_k], of ids
  uint8_t* bad = nullptr;  // [tokens], 1: the row held a NaN or an infinity; its ids are 0..top_k-1
                           // and its weights 0, and the request must fail
};
// Returns the number of bad rows.
int64_t MoeGate(const Cpu& cpu, const MoeGateArgs& args);

}  // namespace bottega
