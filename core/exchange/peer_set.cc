#include "core/exchange/peer_set.h"

#include <algorithm>
#include <cmath>

namespace bottega {
namespace {

// A peer's own words: not finite or negative would poison every comparison.
double Sane(double us) { return std::isfinite(us) && us >= 0 ? std::min(us, 1e9) : 1e3; }

constexpr double kLateMemoryUs = 250e3;   // to a fiftieth in a second
constexpr double kLateCountedUs = 100e3;  // one stop of a minute is not 600 of 100 ms

}  // namespace

void Peer::SetCost(const PeerCost& cost, Time now) {
  info.cost = {.base_us = Sane(cost.base_us), .row_us = Sane(cost.row_us), .queued_rows = 0};
  SetBacklog(info.cost.row_us * static_cast<double>(cost.queued_rows), now);
}

double Peer::ReadyUs(Time now) const {
  return std::max(0.0, backlog_us - Microseconds(now - backlog_at)) +
         info.cost.row_us * credits.in_use();
}

double Peer::LateUs(Time now) const {
  return late_us * std::exp(-Microseconds(now - late_at) / kLateMemoryUs);
}

void Peer::ObserveReply(double predicted_us, double took_us, Time now) {
  const double late = std::clamp(took_us - predicted_us, 0.0, kLateCountedUs);
  const double before = LateUs(now);
  late_us = before + 0.1 * (late - before);
  late_at = now;
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
    usable_.push_back(
        {id, peer.ReadyUs(now) + peer.LateUs(now), peer.info.cost.base_us, peer.info.cost.row_us});
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
