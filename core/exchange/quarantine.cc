// Expert workers whose answers are wrong. A broken connection says nothing about a worker's rows; a
// row that is not finite, a frame that answers nothing or another result than two replicas' does.
#include <algorithm>

#include "core/exchange/dispatch_impl.h"

namespace bottega {
namespace {

// Wrong frames more than good replies. One could be a bit that flipped where no CRC looks; a worker
// that goes on like this is broken.
constexpr int kStrikesMax = 3;
// Incarnations that are gone for good are never reviewed: the oldest make room.
constexpr size_t kQuarantinedMax = 256;

}  // namespace

std::string_view Name(WorkerFault fault) {
  switch (fault) {
    case WorkerFault::kNotFinite:
      return "not_finite";
    case WorkerFault::kWrongFrame:
      return "wrong_frame";
    case WorkerFault::kMismatch:
      return "mismatch";
  }
  return "";
}

void Dispatcher::Impl::Strike(Incarnation sender) {
  Peer* peer = peers.FindIncarnation(sender);
  if (peer == nullptr || peer->quarantined || ++peer->strikes < kStrikesMax) return;
  Quarantine(peer->member, WorkerFault::kWrongFrame);
}

// It gets no more work, and what it still has is taken elsewhere.
void Dispatcher::Impl::Quarantine(MemberId member, WorkerFault fault) {
  Peer* peer = peers.Find(member);
  if (peer == nullptr || peer->quarantined) return;
  peer->quarantined = true;
  Note(options_.flight,
       {.kind = FlightKind::kQuarantined, .peer = member.value, .a = static_cast<uint64_t>(fault)});
  switch (fault) {
    case WorkerFault::kNotFinite:
      ++stats.quarantined_not_finite;
      break;
    case WorkerFault::kWrongFrame:
      ++stats.quarantined_wrong_frame;
      break;
    case WorkerFault::kMismatch:
      ++stats.quarantined_mismatch;
      break;
  }
  if (quarantined_.size() == kQuarantinedMax) quarantined_.erase(quarantined_.begin());
  quarantined_.push_back({{peer->info.incarnation, fault}});
  for (uint64_t sequence :
       in_flight_.Select([&](const Flight& flight) { return flight.member == member; })) {
    Lose(sequence, Loss::kQuarantined);
  }
  dirty_ = true;
  if (options_.on_bad_worker) options_.on_bad_worker();
}

void Dispatcher::Impl::ReviewQuarantine() {
  for (size_t i = quarantined_.size(); i-- > 0;) {
    Quarantined& bad = quarantined_[i];
    const auto member =
        std::find_if(table->members.begin(), table->members.end(),
                     [&](const Member& m) { return m.incarnation == bad.worker.incarnation; });
    if (member == table->members.end()) continue;
    if (member->state == MemberState::kQuarantined) {
      bad.confirmed_term = table->term;
    } else if (bad.confirmed_term == table->term &&
               (member->state == MemberState::kActive || member->state == MemberState::kJoining)) {
      if (Peer* peer = peers.FindIncarnation(bad.worker.incarnation); peer != nullptr) {
        peer->quarantined = false;
        peer->strikes = 0;
      }
      quarantined_.erase(quarantined_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
}

bool Dispatcher::Impl::IsBad(Incarnation incarnation) const {
  return std::any_of(quarantined_.begin(), quarantined_.end(),
                     [&](const Quarantined& bad) { return bad.worker.incarnation == incarnation; });
}

std::vector<BadWorker> Dispatcher::Impl::bad_workers() const {
  std::vector<BadWorker> workers;
  for (const Quarantined& bad : quarantined_) workers.push_back(bad.worker);
  return workers;
}

}  // namespace bottega
