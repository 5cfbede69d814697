#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "core/kernels/sample.h"

namespace bottega {

struct Sequence;

// How long a thought may be. Once it has so many tokens and has not ended, close_id is chosen
// whatever the logits and the other rules say.
struct ThinkingBudget {
  uint32_t tokens = 0;
  int32_t close_id = 0;
  std::optional<int32_t>
      open_id;  // the thought begins after the answer's first; none: it has begun
};

// What a request asks to be done to its logits. Ids are below the vocabulary.
struct LogitRules {
  float repetition_penalty = 1;                 // of tokens of the prompt and the answer; 1: none
  float frequency_penalty = 0;                  // of tokens of the answer, each time
  float presence_penalty = 0;                   // once
  std::vector<LogitBias> bias;                  // of a token at most one
  std::vector<int32_t> allowed_ids;             // empty: all
  std::vector<std::vector<int32_t>> bad_words;  // none empty: not to be written in the answer
  std::optional<ThinkingBudget> thinking;

  bool penalises() const {
    return repetition_penalty != 1 || frequency_penalty != 0 || presence_penalty != 0;
  }
};

// How often a sequence has each token, ascending by id. A function of the tokens: of a sequence
// that is resumed the same.
class TokenCounts {
 public:
  // `tokens` begins with those of the call before; the first `prompt` count as not generated.
  void CatchUp(absl::Span<const int32_t> tokens, int32_t prompt);
  const std::vector<TokenCount>& counts() const { return counts_; }

 private:
  size_t counted_ = 0;
  std::vector<TokenCount> counts_;
};

// Where the answer of a sequence is: before its thought, in it or past it. A function of its
// tokens.
class ThinkingProgress {
 public:
  // `generated` begins with those of the call before.
  void CatchUp(const ThinkingBudget& budget, absl::Span<const int32_t> generated);
  // Whether the token after `drafted`, which follow what was caught up with, is close_id.
  bool Spent(const ThinkingBudget& budget, absl::Span<const int32_t> drafted) const;

 private:
  enum class State : uint8_t { kBefore, kInside, kPast };
  void Take(const ThinkingBudget& budget, int32_t token);

  size_t taken_ = 0;
  uint32_t inside_ = 0;  // tokens of the thought
  State state_ = State::kBefore;
};

// What a row's edits refer to beside its sequence: kept from step to step, so that they allocate
// nothing once it has grown.
struct EditScratch {
  std::vector<int32_t> forbidden;
  std::vector<TokenCount> seen;
};

// The edits for the token after those of `sequence`, which has caught up (CatchUp), and after
// `drafted`. No eos or stop id before min_tokens; the last token of a bad word where the answer
// ends with all before it.
void CatchUp(Sequence& sequence);
LogitEdits EditsOf(const Sequence& sequence, absl::Span<const int32_t> drafted,
                   absl::Span<const int32_t> eos_ids, EditScratch& scratch);

}  // namespace bottega
