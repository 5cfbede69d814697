#pragma once

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "attention-worker/sequence.h"
#include "attention-worker/step_times.h"
#include "core/base/limits.h"

namespace bottega {

struct SpeculationStats {
  uint64_t drafts = 0;  // of one sequence in one step
  uint64_t draft_tokens = 0;
  uint64_t accepted_tokens = 0;
  std::array<uint64_t, limits::kSequenceDraftTokensMax> accepted_at{};  // by place in the draft
};

// Speculation without a draft model: which tokens a decode step computes beyond the last one of
// each sequence, in the hope that they are what comes next. The step samples after each of them,
// and those that equal what is sampled before them are kept: a token is a function of those before
// it (design section 6), sampled or greedy, so the output is that of plain decoding to the byte.
//
// Whether a draft pays. A step of T tokens is measured to take C(T) and emits E tokens, so a token
// is worth C(T) / E. With a chance `a` for each drafted token, given that those before it are
// right, a draft of k emits S(k) = a + a^2 + ... + a^k more in the mean, and costs C(T + k) - C(T).
// It is made if
//     S(k) C(T) / E  >  1.1 (C(T + k) - C(T))
// with the k that makes (E + S(k)) / C(T + k) the largest. The margin of 1.1 is for what the
// estimates are off. E and T grow with each draft of the step: the next sequence's is asked about
// what is there by then. `a` is what the sequence's own drafts gave, by length of the n-gram,
// leaning on what those of all sequences gave while it has few. C is a straight line: a model whose
// layers are read once for any number of tokens has nearly C(T + k) = C(T); a mixture reads more
// experts with every token.
//
// Where no draft pays nothing is learned, so now and then one token is drafted all the same: what
// that costs more than a plain step is paid from 1 % of the time of all decode steps. Likewise one
// step in 64 drafts nothing, so that C of plain steps stays a measured one.
//
// Loop thread only.
class Speculation {
 public:
  // At most so many tokens for one sequence.
  explicit Speculation(int32_t sequence_tokens_max);

  // Sets drafts.tokens of those who are to decode in the next step, all of them one token each.
  void Draft(absl::Span<Sequence* const> decoding);
  // So many of the step's drafted tokens were right.
  void Verified(Sequence& sequence, int32_t accepted);
  // A decode step of so many tokens, drafted ones included, is over and emitted.
  void StepTook(int64_t tokens, Duration took);

  const SpeculationStats& stats() const { return stats_; }

 private:
  // The next step as it stands.
  struct Plan {
    int64_t tokens;  // T
    double emitted;  // E
    int32_t room;    // drafted tokens that it may still take
  };
  void DraftFor(Sequence& sequence, Plan& plan);
  int32_t Worthwhile(double chance, int32_t most, const Plan& plan) const;
  bool AffordsProbe(const Plan& plan);
  double Chance(const Sequence& sequence, int length) const;

  const int32_t sequence_tokens_max_;
  StepTimes times_;
  AcceptanceByLength of_all_;
  SpeculationStats stats_;
  double probe_seconds_ = 0;   // may be spent on probes
  size_t turn_ = 0;            // whose draft is the first
  int steps_with_drafts_ = 0;  // since one without
};

}  // namespace bottega
