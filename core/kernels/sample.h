#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/kernels/cpu/cpu.h"

namespace bottega {

// What decides the choice of a token besides the logits. Ranges are checked at the API.
struct SamplingParams {
  float temperature = 1;  // below 1e-5: greedy, the largest logit, lowest id on a tie
  int32_t top_k = 0;      // <= 0 or >= vocabulary: off
  float top_p = 1;        // (0, 1]; 1: off
  float min_p = 0;        // [0, 1]; 0: off
  uint64_t seed = 0;      // always given: the gateway draws an absent one and logs it
  uint32_t choice = 0;    // index of the choice of a request with n > 1
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// One uniform in [0, 1): the upper 53 bits of Philox4x32-10, key = seed, counter = (position,
// choice, 0). A function of its arguments: a replay draws the same.
double UniformAt(uint64_t seed, uint32_t choice, int64_t position);

struct LogitBias {
  int32_t token = 0;
  float bias = 0;
};
struct TokenCount {
  int32_t token = 0;
  int32_t generated = 0;  // times; 0: in the prompt only
};

// What a request does to its logits before one is chosen. Of each id in this order, in f32 with a
// rounding after each operation:
//   1. -inf, whatever follows, if it is forbidden, or if some are allowed and it is not
//   2. x + bias
//   3. if seen: x > 0 ? x / repetition : x * repetition
//   4. if seen: x - frequency * generated; then, if generated > 0: x - presence
// A finite logit stays finite: what 2, 3 or 4 would make an infinity is the largest f32 of its
// sign. Ids are below the vocabulary.
struct LogitEdits {
  absl::Span<const int32_t> allowed;  // empty: all
  absl::Span<const int32_t> forbidden;
  absl::Span<const LogitBias> bias;   // of a token at most one
  absl::Span<const TokenCount> seen;  // likewise
  float repetition = 1;               // finite, above 0
  float frequency = 0, presence = 0;  // finite

  bool empty() const {
    return allowed.empty() && forbidden.empty() && bias.empty() && seen.empty();
  }
};

// One row to sample.
struct SampleRow {
  const float* logits = nullptr;  // [vocabulary], without padding
  LogitEdits edits;
  SamplingParams params;
  int64_t position = 0;          // absolute position of the token to be chosen
  absl::Span<TokenLogprob> top;  // out: the most likely tokens; its size says how many (<= 20)
  TokenLogprob chosen;           // out
  // out: InternalError if the row holds NaN or +inf, or nothing but -inf; InvalidValue if it is
  // right and the edits leave nothing but -inf.
  absl::Status status;
};

// Memory for a row at a time.
struct RankedToken {
  uint32_t key = 0;  // of its logit
  int32_t id = 0;
};
struct SampleScratch {
  std::vector<RankedToken> tokens, spare;  // [vocabulary]
  std::vector<float> terms;                // [vocabulary]
  std::vector<float> edited;               // [vocabulary]
};

// The edits make the row that is chosen from. Filters run in the order of `transformers`:
// temperature, top_k, top_p, min_p.
//   - Candidates are ids sorted by (logit descending, id ascending), -inf left out; top_k keeps the
//     first k.
//   - e[i] = Exp((logit[i] - max) * (1 / temperature)), f32.
//   - Z = sum of e; with top_k on: over the candidates by rank; off: over the row by id. The sum:
//     in runs of 4096 terms, term j of a run to f32 lane j mod 16, lanes added by the fixed tree;
//     runs added in f64, ascending.
//   - top_p keeps the shortest prefix whose f64 running sum of e (by rank) reaches top_p * Z.
//   - min_p ends the prefix before the first e[i] < min_p (the first has e = 1).
//   - The choice is the first rank of the prefix whose running sum exceeds u * S; S = the running
//     sum at the prefix's end if top_p or min_p is on, else Z; rank 0 if rounding leaves none.
// How candidates are found (partial sorts, widening on demand) cannot change the outcome: the order
// is total.
// logprob = logit - max - Log(sum of Exp(logit - max) over the row, by id) in f64, rounded to f32:
// of the raw logits, before any edit, at temperature 1, -inf entries having probability 0. `top` is
// by the raw logits too.
class Sampler {
 public:
  // Scratch for `threads` rows at a time, so that sampling allocates nothing.
  Sampler(int64_t vocabulary, int threads);

  // cpu.pool has at most `threads` threads; rows are shared out, one per item.
  void Sample(const Cpu& cpu, absl::Span<SampleRow> rows);

 private:
  int64_t vocabulary_;
  std::vector<SampleScratch> scratch_;  // [threads]
};

}  // namespace bottega
