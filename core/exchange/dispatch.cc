#include "core/exchange/dispatch.h"

#include <algorithm>
#include <optional>

#include "core/base/check.h"
#include "core/exchange/dispatch_impl.h"
#include "fmt/format.h"

namespace bottega {

using namespace std::chrono_literals;

Task<absl::StatusOr<DispatchResult>> Dispatcher::Impl::Dispatch(DispatchRequest request,
                                                                std::byte* reply_rows) {
  if (absl::Status status = Validate(request); !status.ok()) co_return status;
  ++stats.dispatches;
  hedge_budget_.OnDispatch();
  DispatchResult result;
  std::vector<MemberId> by;
  const bool verify = options_.verify_every > 0 && ++until_verify_ >= options_.verify_every;
  {
    ActiveDispatch* active = Begin(request, reply_rows);
    ActiveGuard guard(*this, active);
    co_await Fill(active);
    result = ResultOf(*active);
    if (verify) by = active->by;
  }
  if (verify && result.missing.empty()) {
    until_verify_ = 0;
    co_await Verify(request, reply_rows, std::move(by), &result);
  }
  if (!result.missing.empty()) {
    ++stats.dispatches_missing;
    Note(options_.flight, {.kind = FlightKind::kMissing,
                           .key = request.request_key,
                           .layer = request.layer.value,
                           .a = result.missing.size()});
  }
  stats.poison_tokens += result.poison_tokens.size();
  co_return result;
}

Task<void> Dispatcher::Impl::Fill(ActiveDispatch* active) {
  Pump();
  while (active->open > 0) {
    if (loop_.Now() >= active->end) {
      for (uint32_t e = 0; e < active->state.size(); ++e) Fail(*active, e);
      break;
    }
    active->wakes_at = std::min(active->end, NextTimer(*active));
    absl::Status woken = co_await active->slot.Wait(active->wakes_at);
    active->wakes_at = Time::min();
    OnTimers();
  }
}

absl::Status Dispatcher::Impl::Validate(const DispatchRequest& request) const {
  const ExchangeShape& shape = options_.shape;
  if (request.tokens < 0 || request.layer.value >= shape.layers) {
    return absl::InvalidArgumentError("dispatch: tokens or layer outside the model");
  }
  const size_t entries = static_cast<size_t>(request.tokens) * shape.top_k;
  for (size_t e = 0; e < entries; ++e) {
    const bool first = e % shape.top_k == 0;
    if (request.experts[e] >= shape.experts ||
        (!first && request.experts[e] <= request.experts[e - 1])) {
      return absl::InvalidArgumentError("dispatch: experts of a token are ascending and known");
    }
  }
  return absl::OkStatus();
}

ActiveDispatch* Dispatcher::Impl::Begin(const DispatchRequest& request, std::byte* reply_rows) {
  if (idle_.empty()) idle_.push_back(std::make_unique<ActiveDispatch>(loop_));
  ActiveDispatch* active = idle_.back().release();
  idle_.pop_back();
  const size_t entries = static_cast<size_t>(request.tokens) * options_.shape.top_k;
  active->request = request;
  active->reply_rows = reply_rows;
  active->end = std::min(request.deadline, loop_.Now() + options_.expert_wait);
  active->wakes_at = Time::min();
  active->first_reply.reset();
  active->verifies = active->hasty = false;
  active->parts = 0;
  active->open = active->waiting = static_cast<uint32_t>(entries);
  active->state.assign(entries, EntryState::kWaiting);
  active->attempts.assign(entries, 0);
  active->damages.assign(entries, 0);
  active->outstanding.assign(entries, 0);
  active->deaths.assign(entries, 0);
  active->blames.clear();
  active->poisonous.clear();
  active->alone_at = Time::min();
  active->by.assign(entries, MemberId{0});
  active->refused.clear();
  active->refused_why.clear();
  active->not_finite.clear();
  for (uint32_t e = 0; request.skip != nullptr && e < entries; ++e) {
    if (request.skip[e / options_.shape.top_k] == 0) continue;
    active->state[e] = EntryState::kDone;
    --active->open;
    --active->waiting;
  }
  auto later = [&](const ActiveDispatch* other) { return request.phase < other->request.phase; };
  active_.insert(std::find_if(active_.begin(), active_.end(), later), active);
  dirty_ = true;
  return active;
}

void Dispatcher::Impl::End(ActiveDispatch* active) {
  in_flight_.Disown(active);
  std::erase(active_, active);
  idle_.emplace_back(active);
  if (!active_.empty()) active_.front()->slot.Wake();  // the timers are looked after by one
}

DispatchResult Dispatcher::Impl::ResultOf(const ActiveDispatch& active) const {
  DispatchResult result;
  const uint32_t top_k = options_.shape.top_k;
  for (uint32_t e = 0; e < active.state.size(); ++e) {
    if (active.state[e] == EntryState::kDone) continue;
    result.missing.push_back(ExpertId{active.request.experts[e]});
    const int32_t token = static_cast<int32_t>(e / top_k);
    if (result.failed_tokens.empty() || result.failed_tokens.back() != token) {
      result.failed_tokens.push_back(token);
    }
    const bool poison = std::find(active.poisonous.begin(), active.poisonous.end(),
                                  OwnerOf(active, e)) != active.poisonous.end();
    if (poison && (result.poison_tokens.empty() || result.poison_tokens.back() != token)) {
      result.poison_tokens.push_back(token);
    }
  }
  std::sort(result.missing.begin(), result.missing.end());
  result.missing.erase(std::unique(result.missing.begin(), result.missing.end()),
                       result.missing.end());
  return result;
}

void Dispatcher::Impl::Pump() {
  if (pumping_) return;
  pumping_ = true;
  while (std::exchange(dirty_, false)) {
    for (ActiveDispatch* active : active_) Advance(*active);
  }
  pumping_ = false;
  Time first_wake = kNever;
  for (ActiveDispatch* active : active_) {
    if (active->open == 0) active->slot.Wake();
    first_wake = std::min(first_wake, active->wakes_at);
  }
  // What an event posted may be overdue before anybody wakes.
  if (!active_.empty() && NextTimer() < first_wake) active_.front()->slot.Wake();
  // The owner may come straight back with RemovePeer or AddPeer.
  for (auto& [member, why] : std::exchange(lost_peers_, {})) {
    if (options_.on_peer_lost) options_.on_peer_lost(member, why);
  }
}

void Dispatcher::Impl::Advance(ActiveDispatch& active) {
  ConvictDead(active);
  // 1. What nobody is working on.
  if (active.waiting > 0) {
    PostWaiting(active);
    if (active.waiting > 0) FailHopeless(active);
  }
  // 2. What only a suspect peer is working on, overdue.
  for (uint64_t sequence : in_flight_.Select([&](const Flight& flight) {
         return flight.dispatch == &active && flight.overdue && !flight.alone &&
                peers.Find(flight.member)->suspect;
       })) {
    const Flight* flight = in_flight_.Find(sequence);
    if (flight == nullptr) continue;
    std::vector<uint32_t>& entries = entries_;
    entries.clear();
    for (uint32_t e : flight->entries) {
      if (active.state[e] == EntryState::kOut && active.outstanding[e] == 1 && MayTry(active, e)) {
        entries.push_back(e);
      }
    }
    if (!entries.empty()) Post(active, entries, Mode::kHedge);
  }
}

int32_t Dispatcher::Impl::OwnerOf(const ActiveDispatch& active, uint32_t entry) const {
  const auto token = static_cast<int32_t>(entry / options_.shape.top_k);
  return active.request.owners == nullptr ? token : active.request.owners[token];
}

bool Dispatcher::Impl::DropRefusals(ActiveDispatch& active, ActiveDispatch::Why why) {
  const size_t before = active.refused.size();
  for (size_t i = before; i-- > 0;) {
    if (active.refused_why[i] != why) continue;
    active.refused.erase(active.refused.begin() + static_cast<ptrdiff_t>(i));
    active.refused_why.erase(active.refused_why.begin() + static_cast<ptrdiff_t>(i));
  }
  return active.refused.size() < before;
}

void Dispatcher::Impl::RouteEntries(ActiveDispatch& active, const std::vector<uint32_t>& entries) {
  slot_of_expert_.assign(options_.shape.experts, -1);
  need_.clear();
  for (uint32_t e : entries) slot_of_expert_[active.request.experts[e]] = 0;
  for (uint32_t expert = 0; expert < slot_of_expert_.size(); ++expert) {
    if (slot_of_expert_[expert] < 0) continue;
    slot_of_expert_[expert] = static_cast<int32_t>(need_.size());
    need_.push_back({ExpertId{static_cast<uint16_t>(expert)}, 0});
  }
  for (uint32_t e : entries) ++need_[slot_of_expert_[active.request.experts[e]]].rows;
  const absl::Span<const RouteMember> usable = peers.Usable(loop_.Now());
  const auto route = [&] {
    Route({.table = *table,
           .layer = active.request.layer,
           .need = need_,
           .members = usable,
           .refused = active.refused},
          &routing_);
    return std::find(routing_.member_of.begin(), routing_.member_of.end(), Routing::kNobody) ==
           routing_.member_of.end();
  };
  if (!route() && DropRefusals(active, ActiveDispatch::Why::kElsewhere)) route();
  routed_to_.clear();
  for (const RouteMember& member : usable) routed_to_.push_back(member.member);
}

void Dispatcher::Impl::Post(ActiveDispatch& active, const std::vector<uint32_t>& entries,
                            Mode mode) {
  if (table == nullptr || entries.empty()) return;
  RouteEntries(active, entries);
  by_member_.resize(std::max(by_member_.size(), routed_to_.size()));
  for (auto& list : by_member_) list.clear();
  for (uint32_t e : entries) {
    const int32_t m = routing_.member_of[slot_of_expert_[active.request.experts[e]]];
    if (m >= 0 && MayTry(active, e)) by_member_[m].push_back(e);
  }
  const EntryOf of{active.request, options_.shape.top_k};
  for (size_t m = 0; m < routed_to_.size(); ++m) {
    Peer& peer = *peers.Find(routed_to_[m]);
    absl::Span<const uint32_t> rest = by_member_[m];
    while (!rest.empty() && !peer.down) {
      const Credits& credits = peer.credits;
      const Cut cut = CutShare(of, rest, share_limits_, credits.free(), credits.in_use() == 0);
      if (cut.entries == 0) break;  // waits for credits
      if (!PostShare(active, peer, rest.first(cut.entries), cut.tokens, mode)) break;
      rest.remove_prefix(cut.entries);
    }
    if (mode == Mode::kAlone && rest.size() < by_member_[m].size()) return;
  }
}

bool Dispatcher::Impl::PostShare(ActiveDispatch& active, Peer& peer,
                                 absl::Span<const uint32_t> entries, uint32_t tokens, Mode mode) {
  const ExchangeShape& shape = options_.shape;
  const uint32_t rows = static_cast<uint32_t>(entries.size());
  absl::StatusOr<FrameBuffer> frame =
      transport_.Lease(ForwardBytes(tokens, rows, shape.row_bytes()));
  if (!frame.ok()) {  // memory comes back as frames leave
    memory_retry_ = loop_.Now() + 1ms;
    return false;
  }
  const Time now = loop_.Now();
  uint8_t attempt = 0;
  for (uint32_t e : entries) attempt = std::max(attempt, active.attempts[e]);
  active.parts = std::min<uint16_t>(active.parts + 1, limits::kPartsMax);

  FrameHeader header = ForwardHeader(active.request, shape, self_, peer.info, {rows, tokens});
  if (mode == Mode::kAlone) header.reason = static_cast<uint8_t>(FrameReason::kTrial);
  header.sequence = next_sequence_++;
  header.epoch = table->epoch;
  header.part = active.parts - 1;
  header.parts = active.parts;
  header.attempt = attempt + 1;
  const auto left = std::chrono::duration_cast<std::chrono::microseconds>(active.end - now).count();
  header.remaining_us = static_cast<uint32_t>(std::clamp<int64_t>(left, 1, UINT32_MAX));
  header.credits = peer.credits.in_use() + rows;
  WriteForward({active.request, shape.top_k}, entries, shape, header,
               {frame->data(), frame->size()});

  if (absl::Status posted = transport_.Post(peer.info.endpoint, *std::move(frame)); !posted.ok()) {
    LosePeer(peer, Loss::kEndpoint, posted);
    return false;
  }
  stats.rows_sent += rows;
  peer.kind.rows_sent += rows;

  Flight& flight = in_flight_.Add(header.sequence);
  flight.header = header;
  flight.member = peer.member;
  flight.dispatch = &active;
  flight.entries.assign(entries.begin(), entries.end());
  flight.posted = now;
  flight.predicted_us = std::clamp(peer.PredictedUs(now, rows), 0.0, 1e7);
  flight.patience =
      std::max<Duration>(options_.hedge_floor,
                         std::chrono::microseconds(static_cast<int64_t>(3 * flight.predicted_us)));
  flight.due = now + flight.patience;
  flight.hedge = mode == Mode::kHedge;
  flight.alone = mode == Mode::kAlone;
  peer.credits.Take(rows);
  for (uint32_t e : entries) {
    ++active.attempts[e];
    ++active.outstanding[e];
    if (active.state[e] != EntryState::kWaiting) continue;
    active.state[e] = EntryState::kOut;
    --active.waiting;
  }
  Trace(header.sequence << 16 | peer.member.value);
  Record(FlightKind::kSent, flight, header.sequence, rows);
  return true;
}

bool Dispatcher::Impl::MayTry(const ActiveDispatch& active, uint32_t entry) {
  return active.attempts[entry] < limits::kAttemptsMax &&
         active.damages[entry] < limits::kDamagesMax;
}

// Waiting is only for what may still come.
void Dispatcher::Impl::FailHopeless(ActiveDispatch& active) {
  for (uint32_t e = 0; e < active.state.size(); ++e) {
    if (active.state[e] != EntryState::kWaiting) continue;
    if (active.hasty || !MayTry(active, e) ||
        NobodyLeftFor(active, ExpertId{active.request.experts[e]})) {
      Fail(active, e);
    }
  }
}

// Every replica has returned a row that is not finite: the input is bad, not the workers.
bool Dispatcher::Impl::NobodyLeftFor(const ActiveDispatch& active, ExpertId expert) const {
  if (active.not_finite.empty() || table == nullptr) return false;
  if (active.request.layer.value >= table->layers || expert.value >= table->experts) return false;
  const auto& replicas = table->ReplicasOf(active.request.layer, expert);
  return !replicas.empty() && std::all_of(replicas.begin(), replicas.end(), [&](MemberId member) {
    for (size_t i = 0; i < active.refused.size(); ++i) {
      if (active.refused_why[i] == ActiveDispatch::Why::kNotFinite &&
          active.refused[i].member == member && active.refused[i].expert == expert) {
        return true;
      }
    }
    return false;
  });
}

void Dispatcher::Impl::Fail(ActiveDispatch& active, uint32_t entry) {
  EntryState& state = active.state[entry];
  if (state == EntryState::kDone || state == EntryState::kFailed) return;
  if (state == EntryState::kWaiting) --active.waiting;
  state = EntryState::kFailed;
  --active.open;
}

Time Dispatcher::Impl::NextTimer(const ActiveDispatch& active) const {
  Time next = NextTimer();
  if (active.alone_at > loop_.Now()) next = std::min(next, active.alone_at);
  for (const ActiveDispatch::Blame& blame : active.blames) next = std::min(next, blame.until);
  return next;
}

Time Dispatcher::Impl::NextTimer() const {
  return std::min({in_flight_.NextDue(), peers.NextNotBusy(loop_.Now()), memory_retry_});
}

// The public face.
Dispatcher::Dispatcher(Loop& loop, Transport& transport, Incarnation self,
                       DispatcherOptions options)
    : impl_(std::make_unique<Impl>(loop, transport, self, std::move(options))) {}
Dispatcher::~Dispatcher() = default;

void Dispatcher::UpdateTable(TableSnapshot table) { impl_->UpdateTable(std::move(table)); }
void Dispatcher::AddPeer(MemberId member, const PeerInfo& info) { impl_->AddPeer(member, info); }
void Dispatcher::RemovePeer(MemberId member, absl::Status why) { impl_->RemovePeer(member, why); }
void Dispatcher::UpdateCost(MemberId member, const PeerCost& cost) {
  impl_->UpdateCost(member, cost);
}
Task<absl::StatusOr<DispatchResult>> Dispatcher::Dispatch(DispatchRequest request,
                                                          std::byte* reply_rows) {
  return impl_->Dispatch(request, reply_rows);
}
const DispatcherStats& Dispatcher::stats() const { return impl_->stats; }
uint64_t Dispatcher::table_epoch() const {
  return impl_->table == nullptr ? 0 : impl_->table->epoch;
}
size_t Dispatcher::credits_in_use() const {
  size_t rows = 0;
  for (const auto& [id, peer] : impl_->peers.all()) rows += peer.credits.in_use();
  return rows;
}
size_t Dispatcher::peers() const { return impl_->peers.size(); }
std::vector<PeerView> Dispatcher::PeerViews() const {
  std::vector<PeerView> views;
  for (const auto& [member, peer] : impl_->peers.all()) {
    views.push_back({.member = member,
                     .transport = peer.info.transport,
                     .state = peer.quarantined ? PeerView::State::kQuarantined
                              : peer.down      ? PeerView::State::kDown
                              : !peer.up       ? PeerView::State::kConnecting
                              : peer.suspect   ? PeerView::State::kSuspect
                                               : PeerView::State::kUp,
                     .round_trip = &peer.round_trip});
  }
  return views;
}
std::vector<BadWorker> Dispatcher::bad_workers() const { return impl_->bad_workers(); }
bool Dispatcher::IsSuspect(MemberId member) const {
  const Peer* peer = impl_->peers.Find(member);
  return peer != nullptr && peer->suspect;
}
bool Dispatcher::Reached(MemberId member) const {
  const Peer* peer = impl_->peers.Find(member);
  return peer != nullptr && peer->up;
}

}  // namespace bottega
