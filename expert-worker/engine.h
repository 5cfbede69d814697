#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/exchange/dispatch.h"
#include "core/service/context.h"
#include "core/transport/transport.h"
#include "expert-worker/arrivals.h"
#include "expert-worker/expert_compute.h"
#include "expert-worker/expert_set.h"
#include "observability/histogram.h"

namespace bottega {

// Plain counters; metrics.cc names them.
struct ExpertStats {
  uint64_t rows_decode = 0;
  uint64_t rows_prefill = 0;
  uint64_t steps = 0;         // merged pieces of work
  uint64_t step_rows = 0;     // of the last one
  uint64_t experts_read = 0;  // of merged pieces, added up: how often an expert's weights were read
  Duration busy{};
  uint64_t nacks_busy = 0;
  uint64_t nacks_not_held = 0;
  uint64_t nacks_corrupt = 0;
  uint64_t nacks_expired = 0;
  uint64_t dropped_malformed = 0;
  uint64_t dropped_incarnation = 0;
  uint64_t dropped_stranger = 0;
  uint64_t dropped_corrupt = 0;
  uint64_t dropped_unpaired = 0;   // the pair's stream ended
  uint64_t dropped_duplicate = 0;  // of a frame that waits or is in work
  uint64_t load_failures = 0;
  // Seconds of an item of work, by stage; of a frame, from arrival to work; of an assignment, until
  // all of it is ready.
  metrics::LoopHistogram gather{metrics::FineBuckets()};
  metrics::LoopHistogram gate_up{metrics::FineBuckets()};
  metrics::LoopHistogram down{metrics::FineBuckets()};
  metrics::LoopHistogram reply{metrics::FineBuckets()};
  metrics::LoopHistogram queue{metrics::FineBuckets()};
  metrics::LoopHistogram load{metrics::EndToEndBuckets()};
  // Of merged work: its rows, and most over mean rows of the experts it touches.
  metrics::LoopHistogram rows{metrics::RowBuckets()};
  metrics::LoopHistogram imbalance{metrics::ImbalanceBuckets()};
};

struct ExpertEngineOptions {
  ExchangeShape shape;
  uint32_t credits = limits::kCreditRows;
  Duration item_time = std::chrono::milliseconds(5);
};

// The expert worker without its control plane: pairs, what has arrived, which experts are here, and
// the loop that turns rows into rows (step.cc). Keeps no state about requests. Loop thread only.
class ExpertEngine {
 public:
  // All that is given outlives the engine.
  ExpertEngine(ServiceContext& context, Transport& transport, ExpertCompute& compute,
               ExpertEngineOptions options);
  ~ExpertEngine();
  ExpertEngine(const ExpertEngine&) = delete;
  ExpertEngine& operator=(const ExpertEngine&) = delete;

  // The data path, for as long as the node lives.
  Task<void> Run();

  // An attention worker introduced itself: opens an endpoint for it, of the first of `kinds` that
  // can be opened, and makes the session key that all its frames must show.
  absl::StatusOr<std::shared_ptr<Pair>> AddPair(Incarnation attention, const std::string& name,
                                                const std::vector<std::string>& kinds);
  // It told its own end. Until this is up, replies have nowhere to go.
  absl::Status ConnectPair(const Pair& pair, const std::string& peer_address);
  void RemovePair(const std::shared_ptr<Pair>& pair);

  const ExpertSet& held() const { return held_; }
  // `expert` is loaded: from now on it is served.
  void Hold(LayerId layer, ExpertId expert) { held_.Add(layer, expert); }
  // From now on it is not; it is unloaded once no work that has begun can touch it.
  void Retire(LayerId layer, ExpertId expert);
  ExpertCompute& compute() { return compute_; }
  const ExchangeShape& shape() const { return options_.shape; }
  ServiceContext& context() { return context_; }
  Transport& transport() { return transport_; }
  ExpertStats& stats() { return stats_; }

  // For the table's epoch in NACKs.
  void set_epoch(uint64_t epoch) { epoch_ = epoch; }
  // As `pair` is told: what it has here itself it counts itself.
  PeerCost CostFor(const Pair& pair) const;
  size_t pairs() const { return pairs_.size(); }
  size_t queued_rows() const { return arrivals_.rows(); }
  bool idle() const { return arrivals_.rows() == 0; }
  // Rows computed so far by each expert: [layers * experts].
  const std::vector<uint64_t>& expert_rows() const { return expert_rows_; }

 private:
  // One entry of a piece of work: where its row comes from and goes to.
  struct Row {
    uint16_t expert;
    uint32_t arrived;  // how many came before it
    const std::byte* in;
    std::byte* out;
  };
  struct Work {
    FramePhase phase;
    LayerId layer;
    std::vector<Arrival> arrivals;
    std::vector<FrameBuffer> replies;  // [arrivals]
    std::vector<Row> rows;             // by expert, then in order of arrival

    void Clear() {
      arrivals.clear();
      replies.clear();
      rows.clear();
    }
  };

  // step.cc, in the order of a frame's life.
  void OnFrame(FrameBuffer frame);
  void Admit(FrameBuffer frame, const FrameView& view, const std::shared_ptr<Pair>& pair);
  void OnProbe(const FrameHeader& header, const Pair& pair);
  void OfferTrial();
  Task<void> AwaitParts();
  Task<void> RunWork(FramePhase phase);
  bool Gather(Work* work);
  void AddRows(const FrameView& view, std::byte* out, Work* work);
  bool StillWanted(const Arrival& arrival);
  void CrashIf(const FrameView& view);
  size_t RunSlice(const Work& work, size_t first);
  void Measure(const Work& work, Time begun);
  void Reply(Work& work);
  void Nack(const FrameHeader& forward, const Pair& pair, FrameReason reason);
  void Answer(const FrameHeader& header, const Pair& pair);

  absl::StatusOr<EndpointId> OpenFirst(const std::vector<std::string>& kinds, std::string* opened);
  void OnDown(EndpointId endpoint);
  void UnloadRetired();
  void Learn(FramePhase phase, size_t rows, Duration took);
  double& phase_row_us(FramePhase phase) { return phase_row_us_[static_cast<size_t>(phase)]; }

  ServiceContext& context_;
  Transport& transport_;
  ExpertCompute& compute_;
  const ExpertEngineOptions options_;
  ExpertSet held_;
  ExpertStats stats_;
  Arrivals arrivals_;
  std::map<Incarnation, std::shared_ptr<Pair>> pairs_;
  std::vector<std::pair<LayerId, ExpertId>> retired_;
  std::vector<uint64_t> expert_rows_;  // [layers * experts]
  uint64_t epoch_ = 0;
  // Measured, smoothed: of all work, which peers are told, and of each phase, by which items are
  // cut. A row of prefill costs a fraction of one of decode: it shares its expert's weights.
  double row_us_ = 50;
  double phase_row_us_[2] = {50, 50};
  double base_us_ = 50;

  // What is in work, by phase: decode is worked off between two items of prefill. Empty between,
  // but for the memory: a step allocates nothing.
  Work work_[2] = {{.phase = FramePhase::kDecode}, {.phase = FramePhase::kPrefill}};
  // Scratch of RunSlice.
  std::vector<const std::byte*> in_;
  std::vector<std::byte*> out_;
  std::vector<ExpertRows> groups_;
};

}  // namespace bottega
