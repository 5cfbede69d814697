#include "attention-worker/logit_edits.h"

#include <algorithm>

#include "attention-worker/sequence.h"

namespace bottega {
namespace {

bool ById(const TokenCount& a, const TokenCount& b) { return a.token < b.token; }

void CountGenerated(int32_t token, std::vector<TokenCount>& counts) {
  auto at = std::lower_bound(counts.begin(), counts.end(), TokenCount{.token = token}, ById);
  if (at == counts.end() || at->token != token) at = counts.insert(at, {.token = token});
  ++at->generated;
}

// Of many tokens at once: one by one each new id would move all above it.
std::vector<TokenCount> CountAll(absl::Span<const int32_t> tokens, size_t prompt) {
  std::vector<TokenCount> counts;
  counts.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    counts.push_back({.token = tokens[i], .generated = i < prompt ? 0 : 1});
  }
  std::sort(counts.begin(), counts.end(), ById);
  size_t kept = 0;
  for (const TokenCount& one : counts) {
    if (kept > 0 && counts[kept - 1].token == one.token) {
      counts[kept - 1].generated += one.generated;
    } else {
      counts[kept++] = one;
    }
  }
  counts.resize(kept);
  return counts;
}

// Whether the answer so far, drafted tokens included, ends with `tail`.
bool EndsWith(absl::Span<const int32_t> generated, absl::Span<const int32_t> drafted,
              absl::Span<const int32_t> tail) {
  if (tail.size() > generated.size() + drafted.size()) return false;
  const size_t of_draft = std::min(tail.size(), drafted.size());
  const size_t before = tail.size() - of_draft;
  return drafted.last(of_draft) == tail.last(of_draft) &&
         generated.last(before) == tail.first(before);
}

}  // namespace

void TokenCounts::CatchUp(absl::Span<const int32_t> tokens, int32_t prompt) {
  if (counted_ == 0) {
    counts_ = CountAll(tokens, static_cast<size_t>(prompt));
    counted_ = tokens.size();
  }
  for (; counted_ < tokens.size(); ++counted_) CountGenerated(tokens[counted_], counts_);
}

void ThinkingProgress::CatchUp(const ThinkingBudget& budget, absl::Span<const int32_t> generated) {
  for (; taken_ < generated.size(); ++taken_) Take(budget, generated[taken_]);
}

bool ThinkingProgress::Spent(const ThinkingBudget& budget,
                             absl::Span<const int32_t> drafted) const {
  ThinkingProgress ahead = *this;
  for (int32_t token : drafted) ahead.Take(budget, token);
  const bool inside = ahead.state_ == State::kInside ||
                      (ahead.state_ == State::kBefore && !budget.open_id.has_value());
  return inside && ahead.inside_ >= budget.tokens;
}

void ThinkingProgress::Take(const ThinkingBudget& budget, int32_t token) {
  if (state_ == State::kBefore && !budget.open_id) state_ = State::kInside;
  if (state_ == State::kInside) {
    ++inside_;
    if (token == budget.close_id) state_ = State::kPast;
  } else if (state_ == State::kBefore && token == *budget.open_id) {
    state_ = State::kInside;
  }
}

void CatchUp(Sequence& sequence) {
  const SequenceSpec& spec = sequence.spec;
  if (spec.rules.penalises()) {
    sequence.counts.CatchUp(sequence.tokens, sequence.prompt_length());
  }
  if (spec.rules.thinking) {
    sequence.thinking.CatchUp(*spec.rules.thinking,
                              absl::MakeConstSpan(sequence.tokens).subspan(spec.prompt_ids.size()));
  }
}

LogitEdits EditsOf(const Sequence& sequence, absl::Span<const int32_t> drafted,
                   absl::Span<const int32_t> eos_ids, EditScratch& scratch) {
  const SequenceSpec& spec = sequence.spec;
  const LogitRules& rules = spec.rules;
  const absl::Span<const int32_t> generated =
      absl::MakeConstSpan(sequence.tokens).subspan(spec.prompt_ids.size());
  if (rules.thinking && sequence.thinking.Spent(*rules.thinking, drafted)) {
    return {.allowed = absl::MakeConstSpan(&rules.thinking->close_id, 1)};
  }
  scratch.forbidden.clear();
  if (generated.size() + drafted.size() < spec.min_tokens) {
    scratch.forbidden.assign(eos_ids.begin(), eos_ids.end());
    scratch.forbidden.insert(scratch.forbidden.end(), spec.stop_token_ids.begin(),
                             spec.stop_token_ids.end());
  }
  for (const std::vector<int32_t>& word : rules.bad_words) {
    const auto before = absl::MakeConstSpan(word).first(word.size() - 1);
    if (EndsWith(generated, drafted, before)) scratch.forbidden.push_back(word.back());
  }
  LogitEdits edits{.allowed = rules.allowed_ids,
                   .forbidden = scratch.forbidden,
                   .bias = rules.bias,
                   .seen = {},
                   .repetition = rules.repetition_penalty,
                   .frequency = rules.frequency_penalty,
                   .presence = rules.presence_penalty};
  if (!rules.penalises()) return edits;
  edits.seen = sequence.counts.counts();
  if (drafted.empty()) return edits;
  scratch.seen = sequence.counts.counts();
  for (int32_t token : drafted) CountGenerated(token, scratch.seen);
  edits.seen = scratch.seen;
  return edits;
}

}  // namespace bottega
