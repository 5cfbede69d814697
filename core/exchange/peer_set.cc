#include "core/exchange/peer_set.h"

#include <algorithm>
#include <cmath>

namespace bottega {
namespace {

// A peer's own words: not finite or negative would poison every comparison.
double Sane(double us) { return std::isfinite(us) && us >= 0 ? std::min(us, 1e9) : 1e3; }

}  // namespace

void Peer::SetCost(const PeerCost& cost, Time now) {
  info.cost = {.base_us = Sane(cost.base_us), .row_us = Sane(cost.row_us), .queued_rows = 0};
  SetBacklog(info.cost.row_us * static_cast<double>(cost.queued_rows), now);
}

double Peer::ReadyUs(Time now) const {
  const double worked_off = std::chrono::duration<double, std::micro>(now - backlog_at).count();
  return std::max(0.0, backlog_us - worked_off) + info.cost.row_us * credits.in_use();
}

Peer* PeerSet::Find(MemberId member) {
  auto it = peers_.find(member);
  return it == peers_.end() ? nullptr : &it->second;
}

Peer* PeerSet::FindEndpoint(EndpointId endpoint) {
  for (auto& [id, peer] : peers_) {
    if (peer.info.endpoint == endpoint) return &peer;
  }
  return nullptr;
}

Peer* PeerSet::FindIncarnation(Incarnation incarnation) {
  for (auto& [id, peer] : peers_) {
    if (peer.info.incarnation == incarnation) return &peer;
  }
  return nullptr;
}

bool PeerSet::Knows(Incarnation incarnation, uint64_t session_key) const {
  for (const auto& [id, peer] : peers_) {
    if (peer.info.incarnation == incarnation) return peer.info.session_key == session_key;
  }
  return false;
}

Peer& PeerSet::Add(MemberId member, const PeerInfo& info, DispatcherStats::Kind& kind) {
  auto [it, added] = peers_.emplace(std::piecewise_construct, std::forward_as_tuple(member),
                                    std::forward_as_tuple(member, info, kind));
  CHECK(added);
  return it->second;
}

absl::Span<const RouteMember> PeerSet::Usable(Time now) {
  usable_.clear();
  for (const auto& [id, peer] : peers_) {
    if (!peer.Usable(now)) continue;
    usable_.push_back({id, peer.ReadyUs(now), peer.info.cost.base_us, peer.info.cost.row_us});
  }
  return usable_;
}

Time PeerSet::NextNotBusy(Time now) const {
  Time next = kNever;
  for (const auto& [id, peer] : peers_) {
    if (peer.busy_until > now) next = std::min(next, peer.busy_until);
  }
  return next;
}

}  // namespace bottega
