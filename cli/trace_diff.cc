#include "cli/trace_diff.h"

#include <algorithm>
#include <span>
#include <tuple>

namespace bottega {
namespace {

// Walks a trace group by group; a group is a run of entries with one key.
template <typename Key>
class Groups {
 public:
  Groups(std::span<const TraceEntry> entries, Key key) : rest_(entries), key_(key) { Next(); }

  bool done() const { return group_.empty(); }
  std::span<const TraceEntry> group() const { return group_; }
  auto key() const { return key_(group_.front()); }

  void Next() {
    rest_ = rest_.subspan(group_.size());
    size_t length = 0;
    while (length < rest_.size() && key_(rest_[length]) == key_(rest_[0])) ++length;
    group_ = rest_.first(length);
  }

 private:
  std::span<const TraceEntry> rest_;  // begins with group_
  std::span<const TraceEntry> group_;
  const Key key_;
};

// Calls `both(group of a, group of b)`, `only_a(group)`, `only_b(group)` in ascending order of key.
template <typename Key, typename Both, typename OnlyA, typename OnlyB>
void Merge(std::span<const TraceEntry> a, std::span<const TraceEntry> b, Key key, Both both,
           OnlyA only_a, OnlyB only_b) {
  Groups left(a, key), right(b, key);
  while (!left.done() || !right.done()) {
    if (right.done() || (!left.done() && left.key() < right.key())) {
      only_a(left.group());
      left.Next();
    } else if (left.done() || right.key() < left.key()) {
      only_b(right.group());
      right.Next();
    } else {
      both(left.group(), right.group());
      left.Next();
      right.Next();
    }
  }
}

constexpr auto kSequence = [](const TraceEntry& entry) { return entry.sequence; };
constexpr auto kPlace = [](const TraceEntry& entry) { return entry.place; };

uint64_t CountPlaces(std::span<const TraceEntry> entries) {
  uint64_t places = 0;
  for (Groups groups(entries, kPlace); !groups.done(); groups.Next()) ++places;
  return places;
}

void CompareSequence(std::span<const TraceEntry> a, std::span<const TraceEntry> b,
                     TraceDiff& diff) {
  uint64_t differing = 0, common = 0;
  const auto both = [&](std::span<const TraceEntry> left, std::span<const TraceEntry> right) {
    ++common;
    const auto [x, y] =
        std::mismatch(left.begin(), left.end(), right.begin(), right.end(),
                      [](const auto& l, const auto& r) { return l.hash == r.hash; });
    if (x == left.end() && y == right.end()) return;
    if (differing++ > 0) return;
    // One side may be a prefix of the other: then its last hash stands for it.
    diff.partings.push_back({.sequence = left[0].sequence,
                             .place = left[0].place,
                             .hash_a = x == left.end() ? left.back().hash : x->hash,
                             .hash_b = y == right.end() ? right.back().hash : y->hash});
  };
  Merge(
      a, b, kPlace, both, [&](auto) { ++diff.only_a.entries; },
      [&](auto) { ++diff.only_b.entries; });
  diff.both.entries += common;
  diff.differing.entries += differing;
  ++diff.both.sequences;
  if (differing > 0) ++diff.differing.sequences;
}

}  // namespace

TraceDiff CompareTraces(const Trace& a, const Trace& b) {
  TraceDiff diff;
  const auto add = [](TraceCount& count, std::span<const TraceEntry> group) {
    ++count.sequences;
    count.entries += CountPlaces(group);
  };
  Merge(
      std::span(a.entries), std::span(b.entries), kSequence,
      [&](auto left, auto right) { CompareSequence(left, right, diff); },
      [&](auto group) { add(diff.only_a, group); }, [&](auto group) { add(diff.only_b, group); });
  return diff;
}

TraceContradictions FindContradictions(const Trace& trace) {
  TraceContradictions found;
  const auto key = [](const TraceEntry& entry) { return std::tuple(entry.sequence, entry.place); };
  for (Groups groups(std::span(trace.entries), key); !groups.done(); groups.Next()) {
    const auto group = groups.group();
    if (group.size() == 1) continue;
    ++found.places;
    if (!found.first.empty() && found.first.back().sequence == group[0].sequence) continue;
    found.first.push_back({.sequence = group[0].sequence,
                           .place = group[0].place,
                           .hash_a = group[0].hash,
                           .hash_b = group[1].hash});
  }
  return found;
}

}  // namespace bottega
