// What the network, the clock and the pair streams tell the dispatcher.
#include <algorithm>

#include "core/base/check.h"
#include "core/exchange/dispatch_impl.h"
#include "core/exchange/planted_bug.h"

namespace bottega {

using namespace std::chrono_literals;
using Why = ActiveDispatch::Why;

namespace {
constexpr Duration kPatienceMax = 1s;
constexpr Duration kBusyPause = 1ms;
}  // namespace

Dispatcher::Impl::Impl(Loop& loop, Transport& transport, Incarnation self,
                       DispatcherOptions options)
    : loop_(loop),
      transport_(transport),
      self_(self),
      options_(std::move(options)),
      share_limits_(ShareLimitsFor(options_.shape)) {
  Transport::Events events;
  events.on_frame = [this](FrameBuffer frame) { OnFrame(std::move(frame)); };
  events.on_up = [this](EndpointId endpoint) { OnUp(endpoint); };
  events.on_down = [this](EndpointId endpoint, absl::Status why) { OnDown(endpoint, why); };
  transport_.SetEvents(std::move(events));
}

Dispatcher::Impl::~Impl() {
  CHECK(active_.empty());
  transport_.SetEvents({});
}

void Dispatcher::Impl::UpdateTable(TableSnapshot next) {
  CHECK(next != nullptr);
  if (table != nullptr &&
      std::pair(next->term, next->epoch) <= std::pair(table->term, table->epoch)) {
    return;
  }
  table = std::move(next);
  // Who did not hold an expert may hold it now.
  for (ActiveDispatch* active : active_) DropRefusals(*active, Why::kNotHeld);
  ReviewQuarantine();
  dirty_ = true;
  Pump();
}

void Dispatcher::Impl::AddPeer(MemberId member, const PeerInfo& info) {
  RemovePeer(member, absl::UnavailableError("replaced by a new session"));
  Peer& peer = peers.Add(member, info, stats.kinds[info.transport]);
  peer.SetCost(info.cost, loop_.Now());
  peer.quarantined = IsBad(info.incarnation);
  Forgive(info.incarnation);
}

void Dispatcher::Impl::OnUp(EndpointId endpoint) {
  if (Peer* peer = peers.FindEndpoint(endpoint); peer != nullptr) peer->up = true;
  dirty_ = true;
  Pump();
}

void Dispatcher::Impl::RemovePeer(MemberId member, const absl::Status& why) {
  Peer* peer = peers.Find(member);
  if (peer == nullptr) return;
  if (!peer->down) LosePeer(*peer, Loss::kRemoved, why);
  transport_.Close(peer->info.endpoint);
  peers.Remove(member);
  Pump();
}

void Dispatcher::Impl::UpdateCost(MemberId member, const PeerCost& cost) {
  if (Peer* peer = peers.Find(member); peer != nullptr) peer->SetCost(cost, loop_.Now());
}

void Dispatcher::Impl::OnFrame(FrameBuffer frame) {
  const absl::StatusOr<FrameView> view =
      CheckFrame(frame.bytes(), options_.shape, self_,
                 [this](Incarnation sender, uint64_t key) { return peers.Knows(sender, key); });
  if (!view.ok()) {
    OnUnusable(frame, view.status());
    return Pump();
  }
  // It answers, so it lives: new work may go there again.
  if (Peer* peer = peers.FindIncarnation(Incarnation{view->header.sender}); peer != nullptr) {
    if (peer->suspect) Clear(*peer);
  }
  const uint64_t sequence = view->header.sequence;
  const Flight* flight = in_flight_.Find(sequence);
  if (flight == nullptr) {
    ++stats.dropped_unknown;
  } else if (!Answers(view->header, flight->header)) {
    ++stats.dropped_mismatch;
    OnWrong(view->header);
  } else if (view->kind() == FrameKind::kReply) {
    OnReply(sequence, *view);
  } else if (view->kind() == FrameKind::kNack) {
    OnNack(sequence, *view);
  } else if (view->kind() == FrameKind::kAlive) {
    OnAlive(sequence, view->reason());
  } else {
    ++stats.dropped_malformed;
    Strike(Incarnation{view->header.sender});
  }
  Pump();
}

// Its flights are looked at afresh: what the probes say about them is on its way.
void Dispatcher::Impl::Clear(Peer& peer) {
  peer.suspect = false;
  for (uint64_t sequence :
       in_flight_.Select([&](const Flight& flight) { return flight.member == peer.member; })) {
    in_flight_.Find(sequence)->overdue = false;
  }
  dirty_ = true;
}

void Dispatcher::Impl::OnUnusable(const FrameBuffer& frame, const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kFailedPrecondition:
      ++stats.dropped_incarnation;
      return;
    case absl::StatusCode::kPermissionDenied:
      ++stats.dropped_stranger;
      return;
    case absl::StatusCode::kDataLoss: {
      ++stats.dropped_corrupt;
      // Only a hint, but asking again is harmless whatever the changed byte was.
      const FrameHeader header = UncheckedHeader(frame.bytes());
      const Flight* flight = in_flight_.Find(header.sequence);
      if (flight != nullptr && flight->header.receiver == header.sender &&
          header.kind == static_cast<uint8_t>(FrameKind::kReply)) {
        Lose(header.sequence, Loss::kCorrupt);
      }
      return;
    }
    case absl::StatusCode::kOutOfRange: {  // the CRC was good: its sender made it so
      ++stats.dropped_malformed;
      return OnWrong(UncheckedHeader(frame.bytes()));
    }
    default:
      ++stats.dropped_malformed;
  }
}

// Says what was not asked. A NACK of a damaged frame repeats the header as it arrived there: the
// wire's doing, not its sender's.
void Dispatcher::Impl::OnWrong(const FrameHeader& header) {
  const bool of_damaged = header.kind == static_cast<uint8_t>(FrameKind::kNack) &&
                          header.reason == static_cast<uint8_t>(FrameReason::kCorrupt);
  const Flight* flight = in_flight_.Find(header.sequence);
  if (flight != nullptr && flight->header.receiver == header.sender) {
    Lose(header.sequence, of_damaged ? Loss::kCorrupt : Loss::kMismatch);
  }
  if (!of_damaged) Strike(Incarnation{header.sender});
}

void Dispatcher::Impl::OnReply(uint64_t sequence, const FrameView& view) {
  const Flight flight = in_flight_.Take(sequence);
  Peer& peer = *peers.Find(flight.member);
  peer.credits.Give(flight.header.entries);
  peer.strikes = std::max(0, peer.strikes - 1);
  const Time now = loop_.Now();
  peer.SetBacklog(view.header.remaining_us, now);
  peer.ObserveReply(flight.predicted_us, Microseconds(now - flight.posted), now);
  dirty_ = true;  // for who waits for credits
  if (flight.dispatch == nullptr) {
    ++stats.dropped_unknown;
    return;
  }
  ActiveDispatch& active = *flight.dispatch;
  const size_t row_bytes = options_.shape.row_bytes();
  uint64_t used = 0;
  for (size_t i = 0; i < flight.entries.size(); ++i) {
    const uint32_t e = flight.entries[i];
    --active.outstanding[e];
    if (active.state[e] != EntryState::kOut) continue;
    if (!CopyFiniteRow(view.rows + i * row_bytes, active.reply_rows + e * row_bytes,
                       options_.shape)) {
      NotFinite(active, e, flight.member);
      continue;
    }
    active.state[e] = EntryState::kDone;
    active.by[e] = flight.member;
    --active.open;
    ++used;
    Finite(active, e);
  }
  stats.rows_received += used;
  peer.kind.rows_received += used;
  if (used > 0 && active.open == 0 && !active.verifies) ++peer.kind.dispatches;
  if (used > 0 && flight.hedge) ++stats.hedges_won;
  if (used == 0) ++stats.dropped_unknown;
  if (used > 0) MeasureReply(flight, active, peer);
  Trace(sequence << 16 | used);
}

void Dispatcher::Impl::MeasureReply(const Flight& flight, ActiveDispatch& active, Peer& peer) {
  const Time now = loop_.Now();
  peer.kind.round_trip.Observe(Seconds(now - flight.posted));
  peer.round_trip.Observe(Seconds(now - flight.posted));
  Record(FlightKind::kReply, flight, flight.entries.size(),
         static_cast<uint64_t>(Microseconds(now - flight.posted)));
  if (active.verifies) return;
  if (!active.first_reply) active.first_reply = now;
  if (active.open == 0) stats.wait_last_peer.Observe(Seconds(now - *active.first_reply));
}

void Dispatcher::Impl::OnNack(uint64_t sequence, const FrameView& view) {
  Flight& flight = *in_flight_.Find(sequence);
  Peer& peer = *peers.Find(flight.member);
  switch (view.reason()) {
    case FrameReason::kBusy:
      ++stats.busy_nacks;
      peer.busy_until = loop_.Now() + kBusyPause;
      return Lose(sequence, Loss::kBusy);
    case FrameReason::kCorrupt:
      return Lose(sequence, Loss::kCorrupt);
    case FrameReason::kNotHeld:
    case FrameReason::kDraining:
      // Of which expert it does not say. A table that has come since the share was sent knows; else
      // one is on its way, and until then the worker is not asked for any of these again.
      if (flight.dispatch != nullptr && flight.header.epoch == table->epoch) {
        for (uint32_t e : flight.entries) {
          Refuse(*flight.dispatch, flight.member, ExpertId{flight.dispatch->request.experts[e]},
                 Why::kNotHeld);
        }
      }
      return Lose(sequence, Loss::kNotHeld);
    default:
      return Lose(sequence, Loss::kNack);
  }
}

void Dispatcher::Impl::OnAlive(uint64_t sequence, FrameReason reason) {
  Flight& flight = *in_flight_.Find(sequence);
  if (reason == FrameReason::kNotQueued) {
    // Frames of an endpoint stay in order, so its reply would be here: one of the two was lost.
    return Lose(sequence, Loss::kLost);
  }
  if (reason == FrameReason::kTrial) {
    if (!flight.alone || flight.dispatch == nullptr) return;  // it is not wanted any more
    flight.on_trial = true;
    Peer& peer = *peers.Find(flight.member);
    SendProbe(flight, peer, FrameReason::kTrial);
    if (peer.down) return;
  }
  flight.overdue = false;
  flight.probes = 0;
  flight.due = loop_.Now() + flight.patience;
}

void Dispatcher::Impl::OnDown(EndpointId endpoint, const absl::Status& why) {
  if (Peer* peer = peers.FindEndpoint(endpoint); peer != nullptr && !peer->down) {
    LosePeer(*peer, Loss::kEndpoint, why);
  }
  Pump();
}

void Dispatcher::Impl::OnTimers() {
  const Time now = loop_.Now();
  for (uint64_t sequence :
       in_flight_.Select([&](const Flight& flight) { return flight.due <= now; })) {
    if (Flight* flight = in_flight_.Find(sequence); flight != nullptr) OnOverdue(*flight);
  }
  if (memory_retry_ <= now) memory_retry_ = kNever;
  dirty_ = true;
  Pump();
}

// Silence. First evidence makes the peer suspect, within the budget; without budget a second one
// does. From a suspect peer work is taken elsewhere freely: that is no hedge.
void Dispatcher::Impl::OnOverdue(Flight& flight) {
  Peer& peer = *peers.Find(flight.member);
  flight.due = loop_.Now() + flight.patience;
  flight.patience = std::min(kPatienceMax, flight.patience * 2);
  const uint64_t sequence = flight.header.sequence;
  const bool asked = flight.probes > 0;
  if (flight.dispatch != nullptr && flight.dispatch->hasty) {
    for (uint32_t e : flight.entries) Fail(*flight.dispatch, e);
    peer.suspect = true;
  } else if (flight.dispatch != nullptr && !flight.overdue) {
    if (peer.suspect || asked) {
      peer.suspect = true;
      ++stats.resends_suspect;
      flight.overdue = true;
      Record(FlightKind::kHedged, flight, /*why=*/1, flight.entries.size());
    } else if (hedge_budget_.Take()) {
      peer.suspect = true;
      ++stats.hedges;
      flight.overdue = true;
      Record(FlightKind::kHedged, flight, /*why=*/0, flight.entries.size());
    } else {
      ++stats.hedges_denied;
    }
  }
  Trace(sequence);
  SendProbe(flight, peer, FrameReason::kNone);
}

void Dispatcher::Impl::SendProbe(Flight& flight, Peer& peer, FrameReason reason) {
  absl::StatusOr<FrameBuffer> frame = transport_.Lease(sizeof(FrameHeader));
  if (!frame.ok()) return;  // next time
  FrameHeader header = flight.header;
  header.kind = static_cast<uint8_t>(FrameKind::kProbe);
  header.reason = static_cast<uint8_t>(reason);
  SealFrame(header, {frame->data(), frame->size()});
  ++flight.probes;
  if (absl::Status posted = transport_.Post(peer.info.endpoint, *std::move(frame)); !posted.ok()) {
    LosePeer(peer, Loss::kEndpoint, posted);
  }
}

void Dispatcher::Impl::Lose(uint64_t sequence, Loss loss) {
  const Flight flight = in_flight_.Take(sequence);
  Peer& peer = *peers.Find(flight.member);
  peer.credits.Give(flight.header.entries);
  if (peer.credits.in_use() == 0) peer.suspect = false;  // it has nothing left to answer
  dirty_ = true;
  Trace(sequence << 8 | static_cast<uint64_t>(loss));
  if (flight.dispatch == nullptr) return;
  ActiveDispatch& active = *flight.dispatch;
  bool again = false;
  for (uint32_t e : flight.entries) {
    --active.outstanding[e];
    // Refused, damaged or lost on the way is not tried; a wrong answer is held against its worker,
    // which has few of them. What is not held is asked for once a table.
    const bool damaged = loss == Loss::kCorrupt || loss == Loss::kLost;
    if (damaged) ++active.damages[e];
    if (damaged || loss == Loss::kBusy || loss == Loss::kNotHeld || loss == Loss::kMismatch) {
      --active.attempts[e];
    }
    if (active.state[e] != EntryState::kOut || active.outstanding[e] > 0) continue;
    if (kPlantedBug == PlantedBug::kDroppedRetry && loss == Loss::kLost) continue;
    active.state[e] = EntryState::kWaiting;
    ++active.waiting;
    again = true;
    // Who gave a wrong answer or none may do so again: a replica is asked, if one can be.
    if (loss == Loss::kMismatch || loss == Loss::kCorrupt || loss == Loss::kLost) {
      Refuse(active, flight.member, ExpertId{active.request.experts[e]}, Why::kElsewhere);
    }
  }
  if (!again) return;
  Record(FlightKind::kResent, flight, static_cast<uint64_t>(loss), flight.entries.size());
  switch (loss) {
    case Loss::kEndpoint:
      ++stats.resends_endpoint;
      break;
    case Loss::kRemoved:
      ++stats.resends_removed;
      break;
    case Loss::kNack:
    case Loss::kNotHeld:
      ++stats.resends_nack;
      break;
    case Loss::kCorrupt:
    case Loss::kMismatch:
      ++stats.resends_corrupt;
      break;
    case Loss::kLost:
      ++stats.resends_lost;
      break;
    case Loss::kQuarantined:
      ++stats.resends_quarantined;
      break;
    case Loss::kBusy:
      break;
  }
}

void Dispatcher::Impl::LosePeer(Peer& peer, Loss loss, const absl::Status& why) {
  peer.down = true;
  Note(
      options_.flight,
      {.kind = FlightKind::kPeerDown, .peer = peer.member.value, .a = static_cast<uint64_t>(loss)});
  peer.suspect = false;
  for (ActiveDispatch* active : active_) NoteDeath(*active, peer);
  for (uint64_t sequence :
       in_flight_.Select([&](const Flight& flight) { return flight.member == peer.member; })) {
    Lose(sequence, loss);
  }
  if (loss == Loss::kEndpoint) lost_peers_.emplace_back(peer.member, why);
  dirty_ = true;
}

void Dispatcher::Impl::Refuse(ActiveDispatch& active, MemberId member, ExpertId expert, Why why) {
  for (size_t i = 0; i < active.refused.size(); ++i) {
    if (active.refused[i].member == member && active.refused[i].expert == expert &&
        active.refused_why[i] == why) {
      return;
    }
  }
  active.refused.push_back({member, expert});
  active.refused_why.push_back(why);
}

void Dispatcher::Impl::NotFinite(ActiveDispatch& active, uint32_t entry, MemberId member) {
  active.not_finite.push_back({entry, member});
  Refuse(active, member, ExpertId{active.request.experts[entry]}, Why::kNotFinite);
  --active.attempts[entry];  // each replica is asked but once, and held to its answer
  if (active.outstanding[entry] > 0) return;
  active.state[entry] = EntryState::kWaiting;
  ++active.waiting;
  ++stats.resends_not_finite;
}

// A replica could: so the worker that could not is broken.
void Dispatcher::Impl::Finite(ActiveDispatch& active, uint32_t entry) {
  for (const ActiveDispatch::Suspicion& suspicion : active.not_finite) {
    if (suspicion.entry == entry) Quarantine(suspicion.member, WorkerFault::kNotFinite);
  }
}

void Dispatcher::Impl::Record(FlightKind kind, const Flight& flight, uint64_t a, uint64_t b) {
  Note(options_.flight, {.kind = kind,
                         .key = flight.header.request_key,
                         .peer = flight.member.value,
                         .layer = flight.header.layer,
                         .a = a,
                         .b = b});
}

void Dispatcher::Impl::Trace(uint64_t value) {
  if (loop_.simulated()) loop_.MixTrace(value);
}

}  // namespace bottega
