#pragma once

#include <algorithm>
#include <map>

#include "absl/functional/function_ref.h"
#include "core/cluster/route.h"
#include "core/exchange/credits.h"
#include "core/exchange/dispatch.h"

namespace bottega {

// One expert worker as the dispatcher sees it.
struct Peer {
  Peer(MemberId id, const PeerInfo& i, DispatcherStats::Kind& k)
      : member(id), info(i), kind(k), credits(i.credits) {}

  const MemberId member;
  PeerInfo info;
  DispatcherStats::Kind& kind;  // of its transport
  Credits credits;
  bool up = false;           // frames have come through
  bool down = false;         // the endpoint is lost; waits for AddPeer or RemovePeer
  bool suspect = false;      // overdue: no new work until it answers. Has a flight while so
  bool quarantined = false;  // its answers were wrong
  int strikes = 0;           // frames that were no answer to anything
  Time busy_until{};         // it said BUSY
  double backlog_us = 0;     // of others' work there ...
  Time backlog_at{};         // ... as it said then
  double late_us = 0;        // how much later than predicted its replies came, smoothed ...
  Time late_at{};            // ... up to then
  metrics::LoopHistogram round_trip{metrics::FineBuckets()};

  bool Usable(Time now) const {
    return up && !down && !suspect && !quarantined && busy_until <= now && credits.free() > 0;
  }
  // Past a second it is not believed: one wrong bit would keep all work away, and silence
  // unnoticed, for as long as it says.
  void SetBacklog(double us, Time now) {
    backlog_us = std::min(us, 1e6);
    backlog_at = now;
  }
  void SetCost(const PeerCost& cost, Time now);
  // Until its queue is empty: what others have there, as far as it is not worked off since it said
  // so, and what of ours is on the way.
  double ReadyUs(Time now) const;
  double PredictedUs(Time now, uint32_t rows) const {
    return ReadyUs(now) + info.cost.base_us + info.cost.row_us * rows;
  }
  // A worker that is kept from its processor while it has nothing to do does not see it: its cost
  // model knows of its items only, and rows would go on waiting for it. Whoever asks does see it.
  // For the choice among replicas, not for patience: a hedge comes by the published model.
  // Forgotten in a second, so that a worker that is well again is asked again.
  double LateUs(Time now) const;
  void ObserveReply(double predicted_us, double took_us, Time now);
};

class PeerSet {
 public:
  Peer* Find(MemberId member);
  Peer* FindEndpoint(EndpointId endpoint);
  Peer* FindIncarnation(Incarnation incarnation);
  bool Knows(Incarnation incarnation, uint64_t session_key) const;
  Peer& Add(MemberId member, const PeerInfo& info, DispatcherStats::Kind& kind);
  void Remove(MemberId member) { peers_.erase(member); }

  // Who can be sent work now, ascending by id; valid until the next call.
  absl::Span<const RouteMember> Usable(Time now);
  // When somebody stops being busy; kNever if nobody is.
  Time NextNotBusy(Time now) const;

  size_t size() const { return peers_.size(); }
  const std::map<MemberId, Peer>& all() const { return peers_; }

 private:
  std::map<MemberId, Peer> peers_;
  std::vector<RouteMember> usable_;
};

}  // namespace bottega
