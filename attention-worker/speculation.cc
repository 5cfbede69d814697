#include "attention-worker/speculation.h"

#include <algorithm>

#include "core/base/check.h"

namespace bottega {
namespace {

constexpr double kMargin = 1.1;
constexpr double kProbeShare = 0.01;
constexpr int kPlainEvery = 64;

// Tokens after which a measurement has faded to a third. A sequence may change what it does from
// one sentence to the next; what all do changes slowly.
constexpr double kSequenceKeep = 1 - 1.0 / 16;
constexpr double kAllKeep = 1 - 1.0 / 256;
// How many tokens of its own a sequence's estimate takes to weigh as much as that of all.
constexpr double kPriorTokens = 4;
// Before anything is measured: hopeful enough to try.
constexpr Acceptance kFirstGuess{.tried = 4, .accepted = 3};

size_t ByLength(int length) { return static_cast<size_t>(length - NgramDrafter::kShortest); }

// A suspect runs alone until its next token, so that a death names its cause: it tries nothing
// else. The first step after a prompt of which all but a token was cached belongs to the prompt.
bool MayDraft(const Sequence& sequence) {
  return sequence.trial == Trial::kNone && !sequence.just_hit() && !sequence.drafts.stopped;
}

}  // namespace

Speculation::Speculation(int32_t sequence_tokens_max) : sequence_tokens_max_(sequence_tokens_max) {
  CHECK_LE(sequence_tokens_max, limits::kSequenceDraftTokensMax);
  of_all_.fill(kFirstGuess);
}

void Speculation::Draft(absl::Span<Sequence* const> decoding) {
  for (Sequence* sequence : decoding) sequence->drafts.tokens.clear();
  if (steps_with_drafts_ == kPlainEvery) {
    steps_with_drafts_ = 0;
    return;
  }
  Plan plan{.tokens = static_cast<int64_t>(decoding.size()),
            .emitted = static_cast<double>(decoding.size()),
            .room = limits::kDraftTokensMax};
  // Not always the oldest first: room and probes are shared.
  ++turn_;
  for (size_t i = 0; i < decoding.size(); ++i) {
    DraftFor(*decoding[(turn_ + i) % decoding.size()], plan);
  }
  const bool drafted = plan.tokens > static_cast<int64_t>(decoding.size());
  steps_with_drafts_ = drafted ? steps_with_drafts_ + 1 : 0;
}

void Speculation::DraftFor(Sequence& sequence, Plan& plan) {
  if (!MayDraft(sequence)) return;
  Drafts& drafts = sequence.drafts;
  drafts.drafter.Extend(sequence.tokens);
  const auto match = drafts.drafter.Find(sequence.tokens);
  // The step emits a token without any draft, so one fewer is of use.
  const auto left = static_cast<int32_t>(sequence.spec.max_tokens - sequence.generated()) - 1;
  const int32_t most = std::min({sequence_tokens_max_, plan.room, left});
  if (!match || most <= 0) return;
  const double chance = Chance(sequence, match->length);
  int32_t count = Worthwhile(chance, most, plan);
  if (count == 0 && AffordsProbe(plan)) count = 1;
  if (count == 0) return;
  NgramDrafter::Copy(sequence.tokens, match->next, count, drafts.tokens);
  drafts.matched = match->length;
  plan.tokens += count;
  plan.room -= count;
  double all_right = 1;
  for (int32_t i = 0; i < count; ++i) plan.emitted += all_right *= chance;
}

int32_t Speculation::Worthwhile(double chance, int32_t most, const Plan& plan) const {
  const double cost = times_.At(plan.tokens);
  if (cost <= 0) return 0;  // nothing is measured yet
  double best_rate = 0, all_right = 1, more = 0;
  int32_t best = 0;
  for (int32_t count = 1; count <= most; ++count) {
    more += all_right *= chance;
    const double cost_with = times_.At(plan.tokens + count);
    if (more * cost / plan.emitted <= kMargin * (cost_with - cost)) continue;
    const double rate = (plan.emitted + more) / cost_with;
    if (rate <= best_rate) continue;
    best_rate = rate;
    best = count;
  }
  return best;
}

bool Speculation::AffordsProbe(const Plan& plan) {
  const double cost = times_.At(plan.tokens);
  const double more = std::max(0.0, times_.At(plan.tokens + 1) - cost);
  if (cost <= 0 || probe_seconds_ < more) return false;
  probe_seconds_ -= more;
  return true;
}

double Speculation::Chance(const Sequence& sequence, int length) const {
  const Acceptance& own = sequence.drafts.acceptance[ByLength(length)];
  const Acceptance& all = of_all_[ByLength(length)];
  return (own.accepted + kPriorTokens * all.accepted / all.tried) / (own.tried + kPriorTokens);
}

void Speculation::Verified(Sequence& sequence, int32_t accepted) {
  Drafts& drafts = sequence.drafts;
  // What comes after the first wrong one says nothing.
  const auto drafted = static_cast<int32_t>(drafts.tokens.size());
  const int32_t tried = std::min(accepted + 1, drafted);
  ++stats_.drafts;
  stats_.draft_tokens += static_cast<uint64_t>(drafted);
  stats_.accepted_tokens += static_cast<uint64_t>(accepted);
  for (int32_t place = 0; place < accepted; ++place) ++stats_.accepted_at[place];
  drafts.acceptance[ByLength(drafts.matched)].Add(tried, accepted, kSequenceKeep);
  of_all_[ByLength(drafts.matched)].Add(tried, accepted, kAllKeep);
}

void Speculation::StepTook(int64_t tokens, Duration took) {
  times_.Observe(tokens, took);
  // No more is saved up than a step's time: probes stay apart.
  probe_seconds_ = std::min(probe_seconds_ + kProbeShare * Seconds(took), times_.At(tokens));
}

}  // namespace bottega
