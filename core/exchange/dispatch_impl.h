#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/exchange/dispatch.h"
#include "core/exchange/in_flight.h"
#include "core/exchange/peer_set.h"
#include "core/exchange/share.h"

namespace bottega {

enum class EntryState : uint8_t { kWaiting, kOut, kDone, kFailed };

// A dispatch under way: what of it is where.
struct ActiveDispatch {
  explicit ActiveDispatch(Loop& loop) : slot(loop) {}

  // A member that must not get an expert of this dispatch again.
  // kElsewhere only as long as another one can.
  enum class Why : uint8_t { kNotHeld, kNotFinite, kElsewhere, kVerified };
  // A row that came back not finite, until a replica shows whether the worker or the input is bad.
  struct Suspicion {
    uint32_t entry;
    MemberId member;
  };

  // A worker was lost under these rows. Whether it died is not known yet.
  struct Blame {
    Incarnation worker;
    std::vector<int32_t> owners;    // ascending
    std::vector<uint32_t> entries;  // what it had
    bool alone = false;             // they were on trial there, and nobody else's
    Time until{};                   // then it counts as dead
  };

  DispatchRequest request;
  std::byte* reply_rows = nullptr;
  Time end{};
  uint16_t parts = 0;
  uint32_t open = 0;                 // entries neither done nor failed
  uint32_t waiting = 0;              // entries in kWaiting
  std::vector<EntryState> state;     // [tokens * top_k]
  std::vector<uint8_t> attempts;     // [tokens * top_k] frames posted
  std::vector<uint8_t> damages;      // [tokens * top_k] frames that the wire damaged or lost
  std::vector<uint8_t> outstanding;  // [tokens * top_k] frames not answered
  std::vector<uint8_t> deaths;       // [tokens * top_k] peers lost under its owner's rows
  std::vector<MemberId> by;          // [tokens * top_k] whose row is in place
  std::vector<RouteRefusal> refused;
  std::vector<Why> refused_why;  // [refused]
  std::vector<Suspicion> not_finite;
  std::vector<Blame> blames;
  std::vector<int32_t> poisonous;  // owners: a worker died under their rows alone
  Time alone_at{};                 // no rows go alone before; Time::min(): no worker was lost
  bool verifies = false;           // another dispatch: is none itself
  bool hasty = false;              // what has to wait, or is overdue, is given up
  std::optional<Time> first_reply;
  Time wakes_at{};  // asleep until then; Time::min() while it runs
  Slot slot;        // woken when open is 0, or when somebody must wake earlier than all do
};

// Why a flight ended without its rows.
enum class Loss {
  kEndpoint,
  kRemoved,
  kNack,
  kBusy,
  kCorrupt,
  kLost,
  kMismatch,
  kQuarantined,
  kNotHeld
};

// What workers say a dispatch's rows are.
struct Opinion {
  std::vector<std::byte> rows;  // [entries, hidden]
  std::vector<MemberId> by;     // [entries] 0: nobody said
  bool Has(uint32_t entry) const { return by[entry].value != 0; }
};

// An expert worker found bad. A table that shows it quarantined confirms that the router knows; the
// next one of that router that shows it joining or active is its word that it is good again.
struct Quarantined {
  BadWorker worker;
  uint64_t confirmed_term = 0;  // 0: not yet
};

// Everything happens in three moves: an event changes the state of entries, flights and peers;
// Advance posts what waits (for each dispatch, decode first); whoever has no open entry is woken.
// Pump does the last two, and never runs inside itself.
class Dispatcher::Impl {
 public:
  Impl(Loop& loop, Transport& transport, Incarnation self, DispatcherOptions options);
  ~Impl();

  void UpdateTable(TableSnapshot table);
  void AddPeer(MemberId member, const PeerInfo& info);
  void RemovePeer(MemberId member, const absl::Status& why);
  void UpdateCost(MemberId member, const PeerCost& cost);
  Task<absl::StatusOr<DispatchResult>> Dispatch(DispatchRequest request, std::byte* reply_rows);
  std::vector<BadWorker> bad_workers() const;

  DispatcherStats stats;
  PeerSet peers;
  TableSnapshot table;

 private:
  // Ends the dispatch however its frame goes: by return or by a kill.
  class ActiveGuard {
   public:
    ActiveGuard(Impl& impl, ActiveDispatch* active) : impl_(impl), active_(active) {}
    ~ActiveGuard() { impl_.End(active_); }
    ActiveGuard(const ActiveGuard&) = delete;
    ActiveGuard& operator=(const ActiveGuard&) = delete;

   private:
    Impl& impl_;
    ActiveDispatch* active_;
  };

  // dispatch.cc: routing and posting.
  absl::Status Validate(const DispatchRequest& request) const;
  ActiveDispatch* Begin(const DispatchRequest& request, std::byte* reply_rows);
  void End(ActiveDispatch* active);
  // Until every entry is done or failed.
  Task<void> Fill(ActiveDispatch* active);
  DispatchResult ResultOf(const ActiveDispatch& active) const;
  void Pump();
  void Advance(ActiveDispatch& active);
  int32_t OwnerOf(const ActiveDispatch& active, uint32_t entry) const;
  // How a share is sent: for the first time or again; beside a copy that is late; as the only one
  // of its dispatch, to one peer.
  enum class Mode { kPlain, kHedge, kAlone };
  // Sends each of `entries` (ascending) to the replica where it is done soonest, as far as credits
  // and memory go. The rest stays as it was.
  void Post(ActiveDispatch& active, const std::vector<uint32_t>& entries, Mode mode);
  void RouteEntries(ActiveDispatch& active, const std::vector<uint32_t>& entries);
  // False: there were none.
  bool DropRefusals(ActiveDispatch& active, ActiveDispatch::Why why);
  bool PostShare(ActiveDispatch& active, Peer& peer, absl::Span<const uint32_t> entries,
                 uint32_t tokens, Mode mode);
  void FailHopeless(ActiveDispatch& active);
  static bool MayTry(const ActiveDispatch& active, uint32_t entry);
  bool NobodyLeftFor(const ActiveDispatch& active, ExpertId expert) const;
  void Fail(ActiveDispatch& active, uint32_t entry);
  Time NextTimer(const ActiveDispatch& active) const;
  Time NextTimer() const;

  // dispatch_verify.cc: execution at other replicas, to compare.
  Task<void> Verify(DispatchRequest request, std::byte* rows, std::vector<MemberId> by,
                    DispatchResult* result);
  // Rows of the `wanted` entries by anybody but who computed them in `not_by`, and, if possible, in
  // `rather_not_by` (may be null). `hasty`: rows that cannot be had at once stay out.
  Task<Opinion> Ask(const DispatchRequest* request, const std::vector<bool>* wanted,
                    const Opinion* not_by, const Opinion* rather_not_by, bool hasty);
  bool AnotherReplica(const ActiveDispatch& active, uint32_t entry) const;
  void Unresolved(const DispatchRequest& request, uint32_t entry, DispatchResult* result);

  // blame.cc: workers that die, and under whose rows.
  void PostWaiting(ActiveDispatch& active);
  void NoteDeath(ActiveDispatch& active, const Peer& peer);
  void CountDeath(ActiveDispatch& active, const ActiveDispatch::Blame& blame, int by) const;
  void Forgive(Incarnation worker);
  void ConvictDead(ActiveDispatch& active);

  // quarantine.cc: workers that answer wrongly.
  void Strike(Incarnation sender);
  void Quarantine(MemberId member, WorkerFault fault);
  void ReviewQuarantine();
  bool IsBad(Incarnation incarnation) const;

  // dispatch_events.cc: what the network, the clock and the pair streams bring.
  void OnFrame(FrameBuffer frame);
  void OnUnusable(const FrameBuffer& frame, const absl::Status& why);
  void OnWrong(const FrameHeader& header);
  void OnReply(uint64_t sequence, const FrameView& view);
  void OnNack(uint64_t sequence, const FrameView& view);
  void OnAlive(uint64_t sequence, FrameReason reason);
  void OnUp(EndpointId endpoint);
  void OnDown(EndpointId endpoint, const absl::Status& why);
  void OnTimers();
  void Clear(Peer& peer);  // of suspicion
  void OnOverdue(Flight& flight);
  void SendProbe(Flight& flight, Peer& peer, FrameReason reason);
  // Takes the flight out and gives its entries back to be sent again.
  void Lose(uint64_t sequence, Loss loss);
  void LosePeer(Peer& peer, Loss loss, const absl::Status& why);
  void NotFinite(ActiveDispatch& active, uint32_t entry, MemberId member);
  void Finite(ActiveDispatch& active, uint32_t entry);
  void Refuse(ActiveDispatch& active, MemberId member, ExpertId expert, ActiveDispatch::Why why);
  // A reply of `peer` completed some of `active`: how long it took, and how long the last one kept
  // the rest waiting.
  void MeasureReply(const Flight& flight, ActiveDispatch& active, Peer& peer);
  void Trace(uint64_t value);
  // Of `flight`, whose step and layer it belongs to.
  void Record(FlightKind kind, const Flight& flight, uint64_t a, uint64_t b);

  Loop& loop_;
  Transport& transport_;
  const Incarnation self_;
  const DispatcherOptions options_;
  const ShareLimits share_limits_;

  InFlight in_flight_;
  HedgeBudget hedge_budget_;
  uint64_t next_sequence_ = 1;
  std::vector<Quarantined> quarantined_;
  uint64_t until_verify_ = 0;                                  // dispatches
  std::vector<ActiveDispatch*> active_;                        // decode first, then oldest first
  std::vector<std::unique_ptr<ActiveDispatch>> idle_;          // kept, with their vectors' memory
  std::vector<std::pair<MemberId, absl::Status>> lost_peers_;  // to be told after Pump
  bool dirty_ = false;
  bool pumping_ = false;
  Time memory_retry_ = kNever;  // when frame memory ran out

  // Scratch of Post.
  std::vector<uint32_t> entries_;
  std::vector<uint32_t> alone_;
  std::vector<int32_t> owners_out_;
  std::vector<RouteNeed> need_;
  std::vector<int32_t> slot_of_expert_;  // [experts]: index in need_
  Routing routing_;
  std::vector<MemberId> routed_to_;               // [members]
  std::vector<std::vector<uint32_t>> by_member_;  // [members] entries
};

}  // namespace bottega
