#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "absl/functional/function_ref.h"
#include "attention-worker/hash_trace.h"
#include "attention-worker/kv_cache.h"
#include "attention-worker/logit_edits.h"
#include "attention-worker/metrics.h"
#include "attention-worker/scheduler.h"
#include "attention-worker/sequence.h"
#include "attention-worker/speculation.h"
#include "attention-worker/time_slices.h"
#include "core/base/fault_point.h"
#include "core/base/loop.h"
#include "core/exchange/dispatch.h"
#include "core/kernels/sample.h"
#include "core/model/attention_block.h"

namespace bottega {

// What leaves a step, by owner in no particular order; a sequence's own events in order.
struct StepEvents {
  std::vector<TokenEvent> tokens;
  std::vector<EndEvent> ended;
  std::vector<TrialEvent> trials;
  bool empty() const { return tokens.empty() && ended.empty() && trials.empty(); }
};

struct EngineOptions {
  DType row_type = DType::kBF16;
  SchedulerLimits limits;
  int32_t kv_blocks = 0;
  PrefixCacheOptions prefix_cache;
  Duration step_budget{};         // of a slice of prefill; 0: by the decode steps (time_slices.h)
  int32_t draft_tokens = 0;       // of one sequence in a step, at most; 0: no speculation
  bool spoil_freed = false;       // freed KV blocks are overwritten (tests)
  HashTrace* trace = nullptr;     // --hash-trace; outlives the engine
  FaultPoints* faults = nullptr;  // likewise; null: none
  FlightRecorder* flight = nullptr;
};

// A step under way, with its working memory, reused from step to step. There are two, so that
// decode steps can run while a prefill step waits between two of its pieces.
struct StepContext {
  StepContext(FramePhase phase, Scheduler::Step& picked, StepScratch scratch, StageClock stage)
      : phase(phase), picked(picked), scratch(std::move(scratch)), stage(stage) {}

  const FramePhase phase;
  Scheduler::Step& picked;
  StepScratch scratch;
  StageClock stage;
  uint64_t key = 0;
  Duration paused{};               // it was not its turn
  std::vector<int32_t> owners;     // [tokens of the batch] its share
  std::vector<uint8_t> skip;       // [tokens of the batch] failed: nobody needs its experts
  bool experts_missed = false;     // a layer has waited for experts in vain
  std::vector<SampleRow> rows;     // [sampled]
  std::vector<EditScratch> edits;  // [most sampled so far]
  std::vector<TokenLogprob> top;   // [sampled, kTopLogprobsMax]
};

// Continuous batching over one model: takes sequences, runs steps while there are any, hands out
// tokens. Loop thread only; everything referred to outlives it.
class Engine {
 public:
  // Called after each step, when a sequence ends without one, and, with no events, when slots or
  // blocks became free for another reason.
  using OnEvents = std::function<void(const StepEvents&)>;

  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      Loop& loop, Cpu cpu, const PackedModel& model, const AttentionWeights& weights,
      Dispatcher& experts, AttentionMetrics& metrics, EngineOptions options, OnEvents on_events);

  // Refused at once with a reason, or live until an event says that it ended.
  absl::Status Submit(SequenceSpec spec);
  // The gateway knows that it is on trial: it may run.
  void StartTrial(const SequenceKey& key);
  // Takes effect before the next decode step or piece of a prefill step; no event follows. Unknown
  // keys are ignored.
  void Cancel(const SequenceKey& key);
  void CancelOwner(OwnerId owner);

  // An expert worker has answered wrongly, and not only when it was found out: what is cached may
  // come of it.
  void DoubtCached() { scheduler_.WithdrawAll(); }

  // Runs steps for ever; spawn it once.
  Task<void> Run();

  int32_t free_slots() const { return scheduler_.free_slots(); }
  int32_t free_blocks() const { return scheduler_.free_blocks(); }
  int32_t total_blocks() const { return scheduler_.total_blocks(); }
  bool idle() const { return scheduler_.empty(); }
  const Scheduler& scheduler() const { return scheduler_; }
  // CRC of K and V of each [layer][position] of a live sequence, for tests; empty: no such
  // sequence.
  std::vector<std::vector<uint32_t>> KvCrcs(const SequenceKey& key) const;

 private:
  Engine(Loop& loop, Cpu cpu, const PackedModel& model, const AttentionWeights& weights,
         Dispatcher& experts, AttentionMetrics& metrics, EngineOptions options, OnEvents on_events,
         KvCache kv);

  // step.cc: the data path.
  Task<absl::Status> Step(StepContext& step);
  void Attend(StepContext& step, int layer);
  Task<void> AttendInPieces(StepContext& step, int layer);
  Task<void> InPieces(StepContext& step, Piece piece, absl::FunctionRef<void(TokenRange)> run);
  Task<void> Dense(StepContext& step, int layer);
  Task<void> Logits(StepContext& step);
  Task<absl::Status> Experts(StepContext& step, int layer);
  void Sample(StepContext& step);
  absl::Status CrashIf(const StepBatch& batch) const;
  void MarkRows(StepContext& step);
  bool SkipFailed(StepContext& step);
  void FailTokens(StepContext& step, const std::vector<int32_t>& tokens, const absl::Status& why);
  void Emit(StepContext& step);
  void EmitSampled(const StepContext& step, const Scheduler::Share& share);
  bool EmitToken(const StepContext& step, Sequence& sequence, const SampleRow& row);
  int32_t Accepted(const StepContext& step, const Scheduler::Share& share) const;
  void Judge(const Scheduler::Share& share, int32_t accepted);
  void Fail(const Sequence& sequence, const absl::Status& why);
  void TraceRows(const StepContext& step, int layer, std::string_view stage) const;

  // engine.cc: which step is next, and what happens between steps and pieces of them.
  Task<void> RunStep(StepContext& step);
  // Before each piece of a prefill step but the exchange: others get what is theirs.
  Task<void> MakeRoom(StepContext& prefill, Piece next, int64_t work);
  // Of the step's first `done` tokens, how many are still there.
  int64_t DropGone(StepContext& prefill, int64_t done = 0);
  static void NameOwners(StepContext& step);
  void TakeStock();
  void Begun(const StepContext& step);
  void Measure(const StepContext& step, Sequence& sequence, Finish finish) const;
  void MeasureChoice(const Sequence& finished) const;
  void Record(FlightKind kind, const Sequence& sequence, uint64_t a, uint64_t b) const;

  // Ends it early; false: there is no such sequence.
  bool Drop(const SequenceKey& key);
  bool ApplyCancels();
  void OfferTrial();
  void ExpireDeadlines();
  Time NextDeadline() const;
  void End(SequenceKey key, uint32_t owner_epoch, absl::Status why);
  void Flush(bool freed);

  Loop& loop_;
  const Cpu cpu_;
  const PackedModel& model_;
  Dispatcher& experts_;
  AttentionMetrics& metrics_;
  const EngineOptions options_;
  const OnEvents on_events_;

  AttentionBlock block_;
  KvCache kv_;
  std::optional<Speculation> speculation_;
  Scheduler scheduler_;
  TimeSlices slices_;
  StepContext decode_, prefill_;
  Sampler sampler_;
  Slot work_;

  StepEvents events_;
  uint64_t step_key_ = 0;
  std::set<SequenceKey> cancelled_;                        // applied by TakeStock
  std::vector<std::pair<SequenceKey, uint32_t>> expired_;  // scratch of ExpireDeadlines
};

}  // namespace bottega
