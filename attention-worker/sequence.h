#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "attention-worker/drafts.h"
#include "attention-worker/logit_edits.h"
#include "attention-worker/prefix_cache.h"
#include "core/base/time.h"
#include "core/kernels/sample.h"

namespace bottega {

// Who submitted a sequence: one gateway's stream. A gateway that reconnects is a new owner.
using OwnerId = uint64_t;

struct SequenceKey {
  OwnerId owner = 0;
  uint64_t request_key = 0;  // the gateway's
  friend auto operator<=>(const SequenceKey&, const SequenceKey&) = default;
};

// Who goes first where not all can: the least.
struct Rank {
  int32_t priority = 0;
  uint64_t order = 0;  // of arrival
  friend auto operator<=>(const Rank&, const Rank&) = default;
};

// What a gateway asks for: one choice of one request.
struct SequenceSpec {
  SequenceKey key;
  uint32_t owner_epoch = 0;
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> resume_tokens;  // generated before, by an earlier owner
  SamplingParams sampling;
  LogitRules rules;
  uint32_t max_tokens = 0;  // generated tokens, resume_tokens included
  uint32_t min_tokens = 0;  // no eos or stop id before so many
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t top_logprobs = -1;  // -1: no logprobs wanted
  uint64_t trace_key = 0;     // of the request's id, for the flight recorder
  Time deadline = kNever;
  int32_t priority = 0;  // the least goes first
  CacheSalt salt;
  bool suspect = false;  // a worker was lost under it: runs on trial
};

// Suspects run one at a time, so that a death names its cause.
enum class Trial : uint8_t {
  kNone,     // not suspect, or not any more
  kQueued,   // another one is on trial
  kOffered,  // its gateway is told and has not answered
  kRunning,  // until its next token
};

enum class Finish : uint8_t { kNone, kStop, kLength, kError, kBusy };

// One generated token, as it leaves a step.
struct TokenEvent {
  SequenceKey key;
  uint32_t owner_epoch = 0;
  uint32_t index = 0;   // 0-based among the generated tokens
  uint32_t cached = 0;  // prompt tokens that were not computed; of a replay: 0
  int32_t id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;
  Finish finish = Finish::kNone;
};

// A sequence that ended without a token.
struct EndEvent {
  SequenceKey key;
  uint32_t owner_epoch = 0;
  Finish finish = Finish::kError;
  absl::Status why;
};

// It is this sequence's turn to be tried; it runs once its gateway says so.
struct TrialEvent {
  SequenceKey key;
  uint32_t owner_epoch = 0;
};

// A live sequence: its tokens, how many of them are in the KV cache, and where.
struct Sequence {
  SequenceSpec spec;
  Rank rank;
  uint64_t turn = 0;            // among prompts of its priority (scheduler.h)
  int32_t planned = 0;          // tokens for it in the prefill step that is being picked
  std::vector<int32_t> tokens;  // prompt, then generated
  int32_t computed = 0;         // tokens whose K and V are in `blocks`
  bool replays = false;         // what is computed was computed before: here, or by another owner
  Time submitted{};             // for metrics: its life here
  std::optional<Time> started;
  std::optional<Time> first_token, last_token;
  std::vector<int32_t> blocks;  // block i holds positions 16 i .. 16 i + 15
  int32_t published = 0;        // blocks that others may hold too: only read
  int32_t hit = 0;              // tokens that the prefix cache had when it was asked
  bool looked_up = false;       // counted as asked for, since it last had no blocks
  bool doubted = false;         // what it has computed may be wrong: not for others
  Trial trial = Trial::kNone;
  Drafts drafts;
  TokenCounts counts;  // caught up where a penalty needs them

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t prompt_length() const { return static_cast<int32_t>(spec.prompt_ids.size()); }
  uint32_t generated() const { return static_cast<uint32_t>(length() - prompt_length()); }
  // One token short of the end: the next step of this sequence is a decode step.
  bool decoding() const { return computed + 1 == length() && computed > 0; }
  // The next step is its first, and all but one token were cached.
  bool just_hit() const { return hit > 0 && computed == hit; }
  bool may_run() const { return trial == Trial::kNone || trial == Trial::kRunning; }
};

}  // namespace bottega
