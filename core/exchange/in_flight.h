#pragma once

#include <map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "core/base/check.h"
#include "core/base/time.h"
#include "core/cluster/table.h"
#include "core/exchange/exchange_layout.h"

namespace bottega {

struct ActiveDispatch;

// One posted FORWARD that has not been answered. It outlives its dispatch: until the peer says what
// became of it, its rows count against the peer's credits.
struct Flight {
  FrameHeader header{};  // as posted
  MemberId member;
  ActiveDispatch* dispatch = nullptr;  // null: ended; a late reply is dropped
  std::vector<uint32_t> entries;       // of the dispatch, in the order of the frame
  Time posted{};
  double predicted_us = 0;  // as the worker's cost model said then
  Time due{};               // then it is overdue: probe, and hedge if another replica is free
  Duration patience{};      // until the next look
  bool overdue = false;
  bool hedge = false;     // another copy was under way when it was posted
  bool alone = false;     // nothing else of its dispatch was under way
  bool on_trial = false;  // and its worker may compute it, beside nobody else's of that kind
  int probes = 0;         // unanswered
};

// By sequence, so that walking it is walking time.
class InFlight {
 public:
  Flight& Add(uint64_t sequence) { return flights_[sequence]; }
  Flight* Find(uint64_t sequence);
  // Takes it out; the caller ends it.
  Flight Take(uint64_t sequence);

  // The first due time; kNever if nothing is in flight.
  Time NextDue() const;
  // Sequences of the flights that `match`, ascending: a copy to walk while flights come and go.
  std::vector<uint64_t> Select(absl::FunctionRef<bool(const Flight&)> match);
  // The dispatch ends: its flights belong to nobody.
  void Disown(const ActiveDispatch* dispatch);

  size_t size() const { return flights_.size(); }

 private:
  std::map<uint64_t, Flight> flights_;
};

// Does `answer` repeat the identity and the shape of what was posted?
bool Answers(const FrameHeader& answer, const FrameHeader& posted);

}  // namespace bottega
