#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/loop.h"
#include "core/cluster/table.h"
#include "core/exchange/exchange_layout.h"
#include "core/transport/transport.h"
#include "observability/flight_recorder.h"
#include "observability/histogram.h"

namespace bottega {

// What an expert worker says about its speed: predicted service time of n more rows =
// base_us + row_us * (queued_rows + n). What is queued is without the asker's own rows, which it
// counts itself; every answer brings it anew (FrameHeader::remaining_us).
struct PeerCost {
  double base_us = 200;
  double row_us = 50;
  uint64_t queued_rows = 0;
};

// Why an expert worker that answers is given no more work.
enum class WorkerFault : uint8_t {
  kNotFinite,   // a row with NaN or infinity where a replica's was finite
  kWrongFrame,  // frames with a good CRC that are no answer to what was asked
  kMismatch,    // another result than two others for the same row
};
std::string_view Name(WorkerFault fault);

struct BadWorker {
  Incarnation incarnation;
  WorkerFault fault;
};

// One expert worker as its pair stream introduced it.
struct PeerInfo {
  Incarnation incarnation;
  uint64_t session_key = 0;
  EndpointId endpoint;                     // connected, or about to be
  std::string transport;                   // its kind
  uint32_t credits = limits::kCreditRows;  // rows in flight
  PeerCost cost;
};

// The rows of one layer of one step.
struct DispatchRequest {
  uint64_t request_key = 0;
  LayerId layer;
  uint16_t micro_batch = 0;
  FramePhase phase = FramePhase::kDecode;
  int32_t tokens = 0;
  const std::byte* rows = nullptr;    // [tokens, hidden] of R; valid until Dispatch returns
  const uint16_t* experts = nullptr;  // [tokens, top_k], ascending in a row; likewise
  // [tokens] number of the request that a token is of, likewise; null: each of its own.
  const int32_t* owners = nullptr;
  // [tokens] not 0: nobody needs this token's rows, its replies stay as they are; null: all needed.
  const uint8_t* skip = nullptr;
  Time deadline = kNever;
};

// Empty vectors: every row is there.
struct DispatchResult {
  std::vector<ExpertId> missing;  // no replica could serve these in time; ascending
  std::vector<int32_t>
      failed_tokens;  // tokens that lack a row, ascending: their requests must fail
  // Of these, those of requests under whose rows three workers were lost, the last under theirs
  // alone.
  std::vector<int32_t> poison_tokens;
};

struct DispatcherOptions {
  ExchangeShape shape;
  Duration expert_wait = std::chrono::seconds(10);  // for a replica to (re)appear
  Duration hedge_floor = std::chrono::milliseconds(50);
  // Every so-many-th dispatch is executed twice, at different replicas, and compared byte for byte;
  // a third replica arbitrates. 0: never.
  uint32_t verify_every = 0;
  FlightRecorder* flight = nullptr;
  // bad_workers() grew: whoever talks to the router tells it.
  std::function<void()> on_bad_worker;
  // The endpoint of a peer is lost: whoever owns the pair stream pairs again. Not called for
  // RemovePeer.
  std::function<void(MemberId, const absl::Status&)> on_peer_lost;
};

// Plain counters; conventions 4 names them bottega_exchange_*.
struct DispatcherStats {
  // Of what went over one kind of transport. A dispatch counts where its last row came from.
  struct Kind {
    uint64_t dispatches = 0;
    uint64_t rows_sent = 0;                                     // entries
    uint64_t rows_received = 0;                                 // entries used
    metrics::LoopHistogram round_trip{metrics::FineBuckets()};  // seconds, posting to reply
  };
  std::map<std::string, Kind> kinds;
  uint64_t dispatches = 0;
  uint64_t dispatches_missing = 0;  // ended with missing experts
  uint64_t resends_endpoint = 0;    // frames, by what made them necessary
  uint64_t resends_removed = 0;
  uint64_t resends_nack = 0;
  uint64_t resends_corrupt = 0;
  uint64_t resends_lost = 0;     // the peer lives and does not know the frame
  uint64_t resends_suspect = 0;  // overdue at a peer that was suspect already
  uint64_t resends_not_finite = 0;
  uint64_t resends_quarantined = 0;
  uint64_t hedges = 0;
  uint64_t hedges_denied = 0;  // budget empty
  uint64_t hedges_won = 0;     // the second copy answered first
  uint64_t busy_nacks = 0;
  uint64_t dropped_malformed = 0;  // frames received and not used
  uint64_t dropped_incarnation = 0;
  uint64_t dropped_stranger = 0;
  uint64_t dropped_corrupt = 0;
  uint64_t dropped_unknown = 0;  // late, duplicate, or of a forgotten dispatch
  uint64_t dropped_mismatch = 0;
  uint64_t quarantined_not_finite = 0;  // expert workers found bad, by what showed it
  uint64_t quarantined_wrong_frame = 0;
  uint64_t quarantined_mismatch = 0;
  uint64_t verified = 0;             // dispatches executed twice
  uint64_t verified_mismatches = 0;  // rows of them that differed
  uint64_t verified_unresolved = 0;  // and nobody could say which was right
  uint64_t poison_tokens = 0;
  uint64_t rows_sent = 0;      // entries
  uint64_t rows_received = 0;  // entries used
  // Seconds: a frame's posting to its reply; a dispatch's first reply to the one that completed it.
  metrics::LoopHistogram wait_last_peer{metrics::FineBuckets()};

  uint64_t resends() const {
    return resends_endpoint + resends_removed + resends_nack + resends_corrupt + resends_lost +
           resends_suspect + resends_not_finite + resends_quarantined;
  }
};

// One expert worker as it stands now, for metrics.
struct PeerView {
  MemberId member;
  std::string transport;  // its kind
  enum class State { kConnecting, kUp, kSuspect, kQuarantined, kDown } state = State::kUp;
  const metrics::LoopHistogram* round_trip = nullptr;  // seconds; of this connection
};

// The attention worker's end of the exchange: sends each token's row to the workers that hold its
// experts and puts their rows in place. Never goes on without an expert's contribution: a lost
// share is resent, a late one hedged, and what nobody can serve is named in the result.
//
// It is the only user of its transport. Loop thread only. Any number of dispatches may be under
// way; timers run only while one is. Destroy it after every Dispatch has returned (or its frame was
// killed).
class Dispatcher {
 public:
  Dispatcher(Loop& loop, Transport& transport, Incarnation self, DispatcherOptions options);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // The latest wins; an older (term, epoch) is ignored.
  void UpdateTable(TableSnapshot table);
  // Replaces an earlier session with the member. Owns info.endpoint from now on; the peer gets work
  // once that is up.
  void AddPeer(MemberId member, const PeerInfo& info);
  // The death signal: what was in flight there is resent at once. Unknown members are ignored.
  void RemovePeer(MemberId member, absl::Status why);
  void UpdateCost(MemberId member, const PeerCost& cost);

  // Fills reply_rows [tokens, top_k, hidden] in R, unweighted, in the order of request.experts.
  // Returns when every row is there or the rest cannot come: at request.deadline or after
  // expert_wait, whichever is first. An error only for a request that does not fit the shape. The
  // rows of failed tokens are undefined.
  Task<absl::StatusOr<DispatchResult>> Dispatch(DispatchRequest request, std::byte* reply_rows);

  const DispatcherStats& stats() const;
  uint64_t table_epoch() const;
  size_t credits_in_use() const;  // rows, all peers
  size_t peers() const;
  // Pointers are good until the next call of anything else.
  std::vector<PeerView> PeerViews() const;
  bool IsSuspect(MemberId member) const;
  // The member is a peer, and frames have come through to it and back.
  bool Reached(MemberId member) const;
  // Expert workers that get no work from here, until a table shows them quarantined and then not
  // any more, or they start anew.
  std::vector<BadWorker> bad_workers() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bottega
