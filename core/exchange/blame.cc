// Deaths of expert workers, and the requests under whose rows they died (docs/decisions/0020).
#include <algorithm>

#include "core/exchange/dispatch_impl.h"

namespace bottega {
namespace {

// Rows under which so many workers were lost go alone.
constexpr uint8_t kDeathsTogetherMax = 2;
// Workers that die together are known to be dead by then.
constexpr Duration kDeathsSettle = std::chrono::milliseconds(100);
// By then a router says what became of a process. Without one, a worker that has not come back is
// taken for dead.
constexpr Duration kFateMax = std::chrono::seconds(2);

}  // namespace

// Counts at once, so that the rows go on with care, and is taken back if the process comes back:
// then it was the connection that broke, and no attempt either.
void Dispatcher::Impl::NoteDeath(ActiveDispatch& active, const Peer& peer) {
  ActiveDispatch::Blame blame{.worker = peer.info.incarnation, .until = loop_.Now() + kFateMax};
  for (uint64_t sequence : in_flight_.Select([&](const Flight& flight) {
         return flight.dispatch == &active && flight.member == peer.member;
       })) {
    const Flight& flight = *in_flight_.Find(sequence);
    for (uint32_t e : flight.entries) --active.attempts[e];
    // It waited for its trial there: another's rows were the last that the worker saw.
    if (flight.alone && !flight.on_trial) continue;
    blame.alone |= flight.on_trial;
    for (uint32_t e : flight.entries) {
      blame.owners.push_back(OwnerOf(active, e));
      blame.entries.push_back(e);
    }
  }
  if (blame.owners.empty()) return;
  std::sort(blame.owners.begin(), blame.owners.end());
  active.alone_at = loop_.Now() + kDeathsSettle;
  CountDeath(active, blame, 1);
  active.blames.push_back(std::move(blame));
}

void Dispatcher::Impl::CountDeath(ActiveDispatch& active, const ActiveDispatch::Blame& blame,
                                  int by) const {
  for (uint32_t e = 0; e < active.state.size(); ++e) {
    if (!std::ranges::binary_search(blame.owners, OwnerOf(active, e))) continue;
    active.deaths[e] = static_cast<uint8_t>(std::clamp(active.deaths[e] + by, 0, 255));
  }
}

// It answers again: nothing killed it.
void Dispatcher::Impl::Forgive(Incarnation worker) {
  for (ActiveDispatch* active : active_) {
    for (const ActiveDispatch::Blame& blame : active->blames) {
      if (blame.worker == worker) CountDeath(*active, blame, -1);
    }
    std::erase_if(active->blames, [&](const auto& blame) { return blame.worker == worker; });
  }
}

// The router has dropped it, or nobody can be asked: what was lost with it was an attempt, and rows
// that were alone there were the cause.
void Dispatcher::Impl::ConvictDead(ActiveDispatch& active) {
  const auto dead = [&](const ActiveDispatch::Blame& blame) {
    return blame.until <= loop_.Now() ||
           (table != nullptr && std::ranges::none_of(table->members, [&](const Member& member) {
              return member.incarnation == blame.worker;
            }));
  };
  for (const ActiveDispatch::Blame& blame : active.blames) {
    if (!dead(blame)) continue;
    for (uint32_t e : blame.entries) ++active.attempts[e];
    if (!blame.alone) continue;
    active.poisonous.push_back(blame.owners.front());
    for (uint32_t e = 0; e < active.state.size(); ++e) {
      if (OwnerOf(active, e) == blame.owners.front()) Fail(active, e);
    }
  }
  std::erase_if(active.blames, dead);
}

// A worker was lost under a request's rows: the lost ones go again when its other rows have come
// back, for if they are the cause, those at other workers bring these down in the same moment. Two
// were lost: chance, or their doing. They go once more, but one request at a time, to one worker,
// when nothing else of this dispatch is out: a third death is then theirs, and takes nobody else's
// rows along.
void Dispatcher::Impl::PostWaiting(ActiveDispatch& active) {
  entries_.clear();
  alone_.clear();
  owners_out_.clear();  // ascending, as the rows of a request lie together
  const bool lost_one = active.alone_at > Time::min();
  for (uint32_t e = 0; lost_one && e < active.state.size(); ++e) {
    if (active.state[e] == EntryState::kOut) owners_out_.push_back(OwnerOf(active, e));
  }
  bool held = false;
  for (uint32_t e = 0; e < active.state.size(); ++e) {
    if (active.state[e] != EntryState::kWaiting) continue;
    if (active.deaths[e] >= kDeathsTogetherMax) {
      alone_.push_back(e);
    } else if (active.deaths[e] > 0 &&
               std::ranges::binary_search(owners_out_, OwnerOf(active, e))) {
      held = true;
    } else {
      entries_.push_back(e);
    }
  }
  Post(active, entries_, Mode::kPlain);
  if (alone_.empty() || held || !entries_.empty() || loop_.Now() < active.alone_at) return;
  const bool accused = std::ranges::any_of(active.blames, &ActiveDispatch::Blame::alone);
  if (!owners_out_.empty() || accused) return;
  const int32_t owner = OwnerOf(active, alone_.front());
  std::erase_if(alone_, [&](uint32_t e) { return OwnerOf(active, e) != owner; });
  Post(active, alone_, Mode::kAlone);
}

}  // namespace bottega
