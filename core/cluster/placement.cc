#include "core/cluster/placement.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "core/base/check.h"

namespace bottega {
namespace {

// Works with member indices (into members_, ascending id) so that order never depends on a caller.
class Placer {
 public:
  explicit Placer(const PlacementInput& input) : input_(input), members_(input.members) {
    std::sort(members_.begin(), members_.end(),
              [](const auto& a, const auto& b) { return a.id < b.id; });
    for (size_t i = 0; i < members_.size(); ++i) {
      CHECK(i == 0 || members_[i - 1].id < members_[i].id);
      index_[members_[i].id] = i;
    }
    base_ = std::min<size_t>(std::max<uint32_t>(input.replication, 1), members_.size());
    CountWanted();
    used_.resize(members_.size());
    layer_load_.assign(input.layers, std::vector<double>(members_.size()));
    holders_.resize(size_t{input.layers} * input.experts);
    together_.resize(input.layers * members_.size() * members_.size());
  }

  Placement Run() {
    KeepPrevious();
    FitCapacities();
    // Balancing may free room on a full member, which then takes what was missing; this settles.
    bool changed = true;
    for (int pass = 0; changed && pass < 4; ++pass) {
      changed = false;
      // In the last rounds only hot experts want more.
      for (size_t round = 1; round <= members_.size(); ++round) changed |= PlaceMissing(round);
      for (uint32_t layer = 0; layer < input_.layers; ++layer) changed |= Balance(layer);
    }
    return Result();
  }

 private:
  using Key = size_t;  // layer * experts + expert
  uint32_t LayerOf(Key key) const { return static_cast<uint32_t>(key / input_.experts); }
  bool Dense(uint32_t layer) const {
    return layer < input_.dense_layers.size() && input_.dense_layers[layer];
  }
  // What one replica of `key` costs its holder: the expert's load is shared by all its replicas.
  double Weight(Key key) const {
    const double load = input_.load.empty() ? 1 : input_.load[key];
    return std::max(load, 1e-9) / static_cast<double>(wanted_[key]);
  }
  double Speed(size_t member) const { return std::max(members_[member].speed, 1e-9); }
  // How busy `member` is in `layer` with `extra` more, in time.
  double Busy(uint32_t layer, size_t member, double extra = 0) const {
    return (layer_load_[layer][member] + extra) / Speed(member);
  }
  bool Full(size_t member) const { return used_[member] >= members_[member].capacity; }
  bool Holds(Key key, size_t member) const {
    return std::find(holders_[key].begin(), holders_[key].end(), member) != holders_[key].end();
  }
  // Of equals, another member comes first in each layer.
  size_t Turned(uint32_t layer, size_t member) const { return (member + layer) % members_.size(); }

  // How many experts of the layer `member` shares with the holders of `key`. Few means that the
  // death of one member spreads its load over many.
  size_t Shared(Key key, size_t member) const {
    size_t shared = 0;
    for (size_t holder : holders_[key]) {
      shared += together_[(LayerOf(key) * members_.size() + holder) * members_.size() + member];
    }
    return shared;
  }
  void CountTogether(Key key, size_t member, int change) {
    const size_t layer = LayerOf(key), n = members_.size();
    for (size_t holder : holders_[key]) {
      together_[(layer * n + holder) * n + member] += change;
      together_[(layer * n + member) * n + holder] += change;
    }
  }

  void Add(Key key, size_t member) {
    CountTogether(key, member, 1);
    holders_[key].push_back(member);
    ++used_[member];
    layer_load_[LayerOf(key)][member] += Weight(key);
  }
  void Remove(Key key, size_t member) {
    std::erase(holders_[key], member);
    CountTogether(key, member, -1);
    --used_[member];
    layer_load_[LayerOf(key)][member] -= Weight(key);
  }

  void CountWanted();
  void KeepPrevious();
  void FitCapacities();
  bool PlaceMissing(size_t round);
  bool PlaceOne(Key key);
  bool MakeRoom(Key key);
  bool Balance(uint32_t layer);
  bool MoveOne(uint32_t layer, size_t from, const std::vector<size_t>& lightest_first);
  Placement Result() const;

  const PlacementInput& input_;
  std::vector<PlacementMember> members_;
  std::map<MemberId, size_t> index_;
  size_t base_ = 0;                              // holders of an expert that is not hot
  std::vector<size_t> wanted_;                   // [key] holders
  std::vector<std::vector<size_t>> holders_;     // [key] → members
  std::vector<uint64_t> used_;                   // [member] experts held
  std::vector<std::vector<double>> layer_load_;  // [layer][member]
  std::vector<size_t> together_;                 // [layer][member][member] experts held by both
};

// As many that the share of each is within what is fair for a member. One less is enough only when
// it would be so with a good margin: load goes up and down, and a replica costs a load.
void Placer::CountWanted() {
  constexpr double kMargin = 0.7;
  wanted_.assign(size_t{input_.layers} * input_.experts, base_);
  if (!input_.replicate_hot || input_.load.empty() || members_.empty()) return;
  double speed = 0;
  for (size_t member = 0; member < members_.size(); ++member) speed += Speed(member);
  const double mean_speed = speed / static_cast<double>(members_.size());
  for (uint32_t layer = 0; layer < input_.layers; ++layer) {
    const size_t first = size_t{layer} * input_.experts;
    double load = 0;
    for (size_t key = first; key < first + input_.experts; ++key) load += input_.load[key];
    const double fair = load / speed * mean_speed * input_.tolerance;
    for (size_t key = first; fair > 0 && key < first + input_.experts; ++key) {
      const auto holders = [&](double share) {
        return static_cast<size_t>(std::ceil(input_.load[key] / share - 1e-9));
      };
      const size_t before = key < input_.previous.size() ? input_.previous[key].size() : 0;
      const size_t kept = std::min(before, holders(fair * kMargin));
      wanted_[key] = std::clamp(std::max(holders(fair), kept), base_, members_.size());
    }
  }
}

void Placer::KeepPrevious() {
  for (Key key = 0; key < std::min(holders_.size(), input_.previous.size()); ++key) {
    if (Dense(LayerOf(key))) continue;
    for (MemberId id : input_.previous[key]) {
      auto member = index_.find(id);
      if (member != index_.end() && !Holds(key, member->second)) Add(key, member->second);
    }
  }
  // Fewer replicas wanted than there are: the busiest lets go.
  for (Key key = 0; key < holders_.size(); ++key) {
    while (holders_[key].size() > wanted_[key]) {
      const uint32_t layer = LayerOf(key);
      Remove(key,
             *std::max_element(holders_[key].begin(), holders_[key].end(), [&](size_t a, size_t b) {
               return std::pair(Busy(layer, a), Turned(layer, a)) <
                      std::pair(Busy(layer, b), Turned(layer, b));
             }));
    }
  }
}

// A member that holds more than fits lets go of what others have first.
void Placer::FitCapacities() {
  for (size_t member = 0; member < members_.size(); ++member) {
    for (size_t others : {true, false}) {
      for (Key key = holders_.size(); key-- > 0 && used_[member] > members_[member].capacity;) {
        if (Holds(key, member) && (holders_[key].size() > 1) == others) Remove(key, member);
      }
    }
  }
}

bool Placer::PlaceMissing(size_t round) {
  std::vector<Key> missing;
  for (Key key = 0; key < holders_.size(); ++key) {
    if (!Dense(LayerOf(key)) && holders_[key].size() < std::min(round, wanted_[key])) {
      missing.push_back(key);
    }
  }
  // Heavy ones first, layer by layer: what comes later evens out what came before.
  std::stable_sort(missing.begin(), missing.end(), [&](Key a, Key b) {
    if (LayerOf(a) != LayerOf(b)) return LayerOf(a) < LayerOf(b);
    return Weight(a) > Weight(b);
  });
  bool placed = false;
  for (Key key : missing) {
    bool done = PlaceOne(key);
    while (!done && round == 1 && MakeRoom(key)) done = PlaceOne(key);
    placed |= done;
  }
  return placed;
}

bool Placer::PlaceOne(Key key) {
  const uint32_t layer = LayerOf(key);
  size_t best = members_.size();
  const auto cost = [&](size_t member) {
    return std::tuple(Busy(layer, member, Weight(key)), Shared(key, member),
                      static_cast<double>(used_[member]) / Speed(member), Turned(layer, member));
  };
  for (size_t member = 0; member < members_.size(); ++member) {
    if (Full(member) || Holds(key, member)) continue;
    if (best == members_.size() || cost(member) < cost(best)) best = member;
  }
  if (best == members_.size()) return false;
  Add(key, best);
  return true;
}

// Everybody is full and `key` has no holder at all: some expert gives up a second replica.
bool Placer::MakeRoom(Key key) {
  if (members_.empty()) return false;
  for (Key other = holders_.size(); other-- > 0;) {
    if (other == key || holders_[other].size() < 2) continue;
    Remove(other, holders_[other].back());
    return true;
  }
  return false;
}

bool Placer::Balance(uint32_t layer) {
  if (Dense(layer) || members_.size() < 2) return false;
  double load = 0, speed = 0;
  for (size_t member = 0; member < members_.size(); ++member) {
    load += layer_load_[layer][member];
    speed += Speed(member);
  }
  const double fair = load / speed;
  std::vector<size_t> order(members_.size());
  std::iota(order.begin(), order.end(), 0);
  size_t moves = 0;
  for (; moves < size_t{input_.experts} * base_; ++moves) {
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return std::pair(Busy(layer, a), Turned(layer, a)) <
             std::pair(Busy(layer, b), Turned(layer, b));
    });
    const size_t heaviest = order.back();
    if (Busy(layer, heaviest) <= fair * input_.tolerance * (1 + 1e-9)) break;
    if (!MoveOne(layer, heaviest, order)) break;
  }
  return moves > 0;
}

// The one move off `from` that leaves the busier of its two members least busy; false if none
// helps.
bool Placer::MoveOne(uint32_t layer, size_t from, const std::vector<size_t>& lightest_first) {
  const double now = Busy(layer, from);
  double best = now * (1 - 1e-9);
  Key best_key = 0;
  size_t best_to = from;
  for (size_t to : lightest_first) {
    if (to == from || Full(to)) continue;
    for (uint32_t expert = 0; expert < input_.experts; ++expert) {
      const Key key = size_t{layer} * input_.experts + expert;
      if (!Holds(key, from) || Holds(key, to)) continue;
      const double after = std::max(Busy(layer, from, -Weight(key)), Busy(layer, to, Weight(key)));
      if (after >= best) continue;
      best = after;
      best_key = key;
      best_to = to;
    }
  }
  if (best_to == from) return false;
  Remove(best_key, from);
  Add(best_key, best_to);
  return true;
}

Placement Placer::Result() const {
  Placement placement;
  placement.holders.resize(holders_.size());
  for (Key key = 0; key < holders_.size(); ++key) {
    if (Dense(LayerOf(key))) continue;
    for (size_t member : holders_[key]) placement.holders[key].push_back(members_[member].id);
    std::sort(placement.holders[key].begin(), placement.holders[key].end());
    placement.unplaced += holders_[key].empty();
    placement.replicas_short += base_ - std::min(base_, holders_[key].size());
  }
  if (members_.empty()) {
    placement.replicas_short = placement.unplaced * std::max<uint32_t>(input_.replication, 1);
  }
  return placement;
}

}  // namespace

Placement Place(const PlacementInput& input) {
  const size_t keys = size_t{input.layers} * input.experts;
  CHECK(input.load.empty() || input.load.size() == keys);
  CHECK(input.previous.empty() || input.previous.size() == keys);
  return Placer(input).Run();
}

double Imbalance(const PlacementInput& input, const std::vector<std::vector<MemberId>>& holders) {
  double worst = 1;
  for (uint32_t layer = 0; layer < input.layers; ++layer) {
    std::map<MemberId, double> busy;
    double load = 0, speed = 0;
    for (size_t key = size_t{layer} * input.experts; key < (layer + size_t{1}) * input.experts;
         ++key) {
      if (key >= holders.size() || holders[key].empty()) continue;
      const double weight = input.load.empty() ? 1 : input.load[key];
      load += weight;
      for (MemberId id : holders[key]) {
        busy[id] += weight / static_cast<double>(holders[key].size());
      }
    }
    for (const PlacementMember& member : input.members) speed += std::max(member.speed, 1e-9);
    for (const PlacementMember& member : input.members) {
      if (load <= 0) continue;
      worst = std::max(worst, busy[member.id] / std::max(member.speed, 1e-9) / (load / speed));
    }
  }
  return worst;
}

uint64_t CountLoads(const std::vector<std::vector<MemberId>>& previous,
                    const std::vector<std::vector<MemberId>>& next) {
  uint64_t loads = 0;
  for (size_t key = 0; key < next.size(); ++key) {
    for (MemberId id : next[key]) {
      loads += key >= previous.size() ||
               std::find(previous[key].begin(), previous[key].end(), id) == previous[key].end();
    }
  }
  return loads;
}

}  // namespace bottega
