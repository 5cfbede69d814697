#include "core/cluster/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace bottega {
namespace {

using Holders = std::vector<std::vector<MemberId>>;

PlacementInput Uniform(uint32_t layers, uint32_t experts, uint32_t members, uint32_t replication) {
  PlacementInput input;
  input.layers = layers;
  input.experts = experts;
  input.replication = replication;
  for (uint32_t i = 1; i <= members; ++i) {
    input.members.push_back({MemberId{i}, uint64_t{layers} * experts, 1});
  }
  return input;
}

// What holds for every placement, whatever the input.
void CheckSound(const PlacementInput& input, const Placement& placement) {
  ASSERT_EQ(placement.holders.size(), size_t{input.layers} * input.experts);
  std::map<MemberId, uint64_t> used;
  std::set<MemberId> known;
  for (const PlacementMember& member : input.members) known.insert(member.id);
  uint64_t unplaced = 0, room_needed = 0;
  for (size_t key = 0; key < placement.holders.size(); ++key) {
    const auto& holders = placement.holders[key];
    const uint32_t layer = static_cast<uint32_t>(key / input.experts);
    if (layer < input.dense_layers.size() && input.dense_layers[layer]) {
      EXPECT_TRUE(holders.empty());
      continue;
    }
    ++room_needed;
    unplaced += holders.empty();
    EXPECT_LE(holders.size(), input.replication);
    EXPECT_TRUE(std::is_sorted(holders.begin(), holders.end()));
    EXPECT_EQ(std::set<MemberId>(holders.begin(), holders.end()).size(), holders.size())
        << "two replicas on one member";
    for (MemberId id : holders) {
      EXPECT_TRUE(known.contains(id));
      ++used[id];
    }
  }
  uint64_t room = 0;
  for (const PlacementMember& member : input.members) {
    EXPECT_LE(used[member.id], member.capacity);
    room += std::min<uint64_t>(member.capacity, room_needed);
  }
  EXPECT_EQ(placement.unplaced, unplaced);
  if (room >= room_needed) {
    EXPECT_EQ(unplaced, 0u) << "an expert without a holder although there is room";
  }
}

// Busiest member of a layer over the fair share.
double WorstImbalance(const PlacementInput& input, const Placement& placement) {
  double worst = 1;
  for (uint32_t layer = 0; layer < input.layers; ++layer) {
    std::map<MemberId, double> busy;
    double total = 0, speed = 0;
    for (uint32_t expert = 0; expert < input.experts; ++expert) {
      const size_t key = size_t{layer} * input.experts + expert;
      for (MemberId id : placement.holders[key]) {
        const double weight = (input.load.empty() ? 1 : input.load[key]) /
                              static_cast<double>(placement.holders[key].size());
        busy[id] += weight;
        total += weight;
      }
    }
    for (const PlacementMember& member : input.members) speed += member.speed;
    for (const PlacementMember& member : input.members) {
      if (total > 0) {
        worst = std::max(worst, busy[member.id] / member.speed / (total / speed));
      }
    }
  }
  return worst;
}

TEST(Placement, FreshAndUniformIsEven) {
  for (uint32_t members : {1, 2, 3, 4, 5, 7}) {
    for (uint32_t replication : {1, 2, 3}) {
      const PlacementInput input = Uniform(4, 64, members, replication);
      const Placement placement = Place(input);
      CheckSound(input, placement);
      EXPECT_EQ(placement.replicas_short, 0u);
      const double copies = 64.0 * std::min(replication, members);
      const double fair = copies / members;
      // One over even: pairs are spread before the last copy is evened out.
      EXPECT_LE(WorstImbalance(input, placement), (std::ceil(fair) + 1) / fair + 1e-9)
          << members << " members, replication " << replication;
    }
  }
}

TEST(Placement, TheOddExpertsGoToDifferentMembers) {
  const PlacementInput input = Uniform(24, 64, 5, 1);  // 12.8 a layer
  const Placement placement = Place(input);
  std::map<MemberId, int> used;
  for (const auto& holders : placement.holders) ++used[holders[0]];
  for (auto& [id, count] : used) {
    EXPECT_GE(count, 303);  // 307.2 each
    EXPECT_LE(count, 312);
  }
}

TEST(Placement, NothingMovesWithoutReason) {
  PlacementInput input = Uniform(6, 64, 4, 2);
  const Placement first = Place(input);
  input.previous = first.holders;
  EXPECT_EQ(Place(input).holders, first.holders);
}

TEST(Placement, ADeadMemberMovesOnlyWhatItHeld) {
  PlacementInput input = Uniform(6, 64, 4, 2);
  input.previous = Place(input).holders;
  uint64_t held_by_dead = 0;
  for (const auto& holders : input.previous) {
    held_by_dead += std::count(holders.begin(), holders.end(), MemberId{2});
  }
  std::erase_if(input.members, [](const auto& member) { return member.id == MemberId{2}; });
  const Placement after = Place(input);
  CheckSound(input, after);
  EXPECT_EQ(after.replicas_short, 0u);
  EXPECT_EQ(CountLoads(input.previous, after.holders), held_by_dead);
  EXPECT_LE(WorstImbalance(input, after), 1.10 + 1e-9);
}

// Its load must not fall on one other member.
TEST(Placement, AMemberSharesItsExpertsWithAllOthers) {
  const PlacementInput input = Uniform(3, 64, 4, 2);
  const Placement placement = Place(input);
  for (uint32_t layer = 0; layer < 3; ++layer) {
    std::map<std::pair<MemberId, MemberId>, int> pairs;
    for (uint32_t expert = 0; expert < 64; ++expert) {
      const auto& holders = placement.holders[layer * 64 + expert];
      ++pairs[{holders[0], holders[1]}];
    }
    EXPECT_EQ(pairs.size(), 6u);
    for (auto& [pair, count] : pairs) {  // 64 / 6 = 10.7
      EXPECT_GE(count, 8);
      EXPECT_LE(count, 14);
    }
  }
}

TEST(Placement, AJoiningMemberTakesItsShareAndNoMore) {
  PlacementInput input = Uniform(6, 64, 4, 2);
  input.previous = Place(input).holders;
  input.members.push_back({MemberId{9}, 1000, 1});
  const Placement after = Place(input);
  CheckSound(input, after);
  EXPECT_LE(WorstImbalance(input, after), 1.10 + 1e-9);
  // 6 layers x 128 copies / 5 members = 25.6 a layer is its fair share.
  EXPECT_LE(CountLoads(input.previous, after.holders), 6u * 26u);
  EXPECT_GE(CountLoads(input.previous, after.holders), 6u * 12u);
  for (size_t key = 0; key < after.holders.size(); ++key) {
    for (MemberId id : after.holders[key]) {
      const auto& before = input.previous[key];
      EXPECT_TRUE(id == MemberId{9} || std::count(before.begin(), before.end(), id) == 1)
          << "a move between old members";
    }
  }
}

TEST(Placement, AFastMemberGetsMore) {
  PlacementInput input = Uniform(2, 60, 3, 1);
  input.members[0].speed = 4;
  const Placement placement = Place(input);
  int fast = 0;
  for (uint32_t expert = 0; expert < 60; ++expert) {
    fast += placement.holders[expert][0] == input.members[0].id;
  }
  EXPECT_EQ(fast, 40);
}

TEST(Placement, AHotExpertIsAlone) {
  PlacementInput input = Uniform(1, 8, 4, 1);
  input.load.assign(8, 1);
  input.load[3] = 100;
  const Placement placement = Place(input);
  for (uint32_t expert = 0; expert < 8; ++expert) {
    if (expert != 3) {
      EXPECT_NE(placement.holders[expert], placement.holders[3]);
    }
  }
}

TEST(Placement, LoadThatShiftsMovesLittle) {
  PlacementInput input = Uniform(1, 64, 4, 1);
  input.previous = Place(input).holders;
  input.load.assign(64, 1);
  for (uint32_t expert = 0; expert < 64; ++expert) {
    if (input.previous[expert][0] == MemberId{1}) input.load[expert] = 2;
  }
  const Placement after = Place(input);
  EXPECT_LE(WorstImbalance(input, after), 1.10 + 1e-9);
  EXPECT_LE(CountLoads(input.previous, after.holders), 12u);
}

TEST(Placement, FirstReplicasComeBeforeSecondOnes) {
  PlacementInput input = Uniform(2, 16, 4, 2);
  for (PlacementMember& member : input.members) member.capacity = 10;  // 40 of 64
  const Placement placement = Place(input);
  CheckSound(input, placement);
  EXPECT_EQ(placement.unplaced, 0u);
  EXPECT_EQ(placement.replicas_short, 64u - 40u);
}

TEST(Placement, ASecondReplicaMakesRoomForALostExpert) {
  PlacementInput input = Uniform(1, 4, 3, 2);
  for (PlacementMember& member : input.members) member.capacity = 2;
  // 1 holds {0,1}, 2 holds {0,1}, 3 held {2,3} and died.
  input.previous = {
      {MemberId{1}, MemberId{2}}, {MemberId{1}, MemberId{2}}, {MemberId{3}}, {MemberId{3}}};
  input.members.pop_back();
  const Placement placement = Place(input);
  CheckSound(input, placement);
  EXPECT_EQ(placement.unplaced, 0u);
}

TEST(Placement, NobodyHoldsAnythingWithoutMembers) {
  const Placement placement = Place(Uniform(2, 4, 0, 2));
  EXPECT_EQ(placement.unplaced, 8u);
  EXPECT_EQ(placement.replicas_short, 16u);
}

TEST(Placement, RandomInputsKeepEveryPromise) {
  std::mt19937_64 random(7);
  const auto below = [&](uint64_t n) { return random() % n; };
  for (int round = 0; round < 400; ++round) {
    PlacementInput input;
    input.layers = 1 + below(4);
    input.experts = 1 + below(40);
    input.replication = 1 + below(3);
    input.dense_layers.resize(input.layers);
    input.dense_layers[0] = below(2) == 0;
    const uint64_t keys = uint64_t{input.layers} * input.experts;
    for (uint64_t i = 0; i < below(7); ++i) {
      input.members.push_back({MemberId{static_cast<uint32_t>(i * 3 + 1)},
                               below(3) == 0 ? below(keys + 1) : keys, 0.5 + below(4) * 0.5});
    }
    std::shuffle(input.members.begin(), input.members.end(), random);
    if (below(2) == 0) {
      for (uint64_t i = 0; i < keys; ++i) input.load.push_back(static_cast<double>(below(100)));
    }
    for (int change = 0; change < 3; ++change) {
      const Placement placement = Place(input);
      CheckSound(input, placement);
      EXPECT_EQ(Place(input).holders, placement.holders);
      PlacementInput shuffled = input;
      std::shuffle(shuffled.members.begin(), shuffled.members.end(), random);
      EXPECT_EQ(Place(shuffled).holders, placement.holders) << "order of members matters";
      input.previous = placement.holders;
      // At rest after one more step at most: what balances once does not swing.
      PlacementInput again = input;
      again.previous = Place(again).holders;
      EXPECT_EQ(Place(again).holders, again.previous);
      if (!input.members.empty() && below(2) == 0) {
        input.members.pop_back();
      } else {
        input.members.push_back(
            {MemberId{static_cast<uint32_t>(100 + change)}, below(keys + 1), 1});
      }
      if (::testing::Test::HasFailure()) {
        FAIL() << "round " << round << " change " << change;
      }
    }
  }
}

// Greedy by weight: no member is further above the fair share than one heaviest replica.
TEST(Placement, FreshLoadIsWithinOneReplicaOfFair) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 100; ++round) {
    PlacementInput input = Uniform(1, 64, 2 + random() % 6, 1 + random() % 2);
    input.tolerance = 1;
    double total = 0, heaviest = 0;
    for (int expert = 0; expert < 64; ++expert) {
      input.load.push_back(std::pow(1.1, static_cast<double>(random() % 30)));
      total += input.load.back();
      heaviest = std::max(heaviest, input.load.back() / input.replication);
    }
    const double fair = total / static_cast<double>(input.members.size());
    EXPECT_LE(WorstImbalance(input, Place(input)), 1 + heaviest / fair + 1e-9);
  }
}

PlacementInput WithOneHot(double hot) {
  PlacementInput input = Uniform(1, 16, 4, 1);
  input.load.assign(16, 1);
  input.load[5] = hot;
  input.replicate_hot = true;
  return input;
}

TEST(Placement, AHotExpertGetsAsManyReplicasAsItsLoadAsksFor) {
  const Placement calm = Place(WithOneHot(1));
  for (const auto& holders : calm.holders) EXPECT_EQ(holders.size(), 1u);
  // 45 of 60 rows: fair is 15, so it takes three; the others stay at one.
  PlacementInput input = WithOneHot(45);
  input.previous = calm.holders;
  const Placement placement = Place(input);
  EXPECT_EQ(placement.holders[5].size(), 3u);
  for (size_t key = 0; key < 16; ++key) {
    EXPECT_EQ(placement.holders[key].size(), key == 5 ? 3u : 1u) << key;
  }
  EXPECT_LE(Imbalance(input, placement.holders), input.tolerance);
  EXPECT_GT(Imbalance(input, calm.holders), 2.5) << "what one replica cannot help";
  // Given up only when clearly colder, and then all of it.
  input.load[5] = 42;
  input.previous = placement.holders;
  EXPECT_EQ(CountLoads(input.previous, Place(input).holders), 0u);
  input = WithOneHot(1);
  input.previous = placement.holders;
  EXPECT_EQ(Place(input).holders[5].size(), 1u);
}

TEST(Placement, AHotExpertTakesOnlyRoomThatIsLeft) {
  PlacementInput input = WithOneHot(45);
  for (PlacementMember& member : input.members) member.capacity = 4;  // 16 places for 16 experts
  const Placement placement = Place(input);
  EXPECT_EQ(placement.unplaced, 0u);
  for (const auto& holders : placement.holders) EXPECT_EQ(holders.size(), 1u);
}

TEST(Placement, ImbalanceIsOfTheWorstLayerAndKnowsSpeeds) {
  PlacementInput input = Uniform(2, 2, 2, 1);
  const Holders even = {{MemberId{1}}, {MemberId{2}}, {MemberId{1}}, {MemberId{2}}};
  EXPECT_DOUBLE_EQ(Imbalance(input, even), 1);
  EXPECT_DOUBLE_EQ(Imbalance(input, {{MemberId{1}}, {MemberId{2}}, {MemberId{1}}, {MemberId{1}}}),
                   2);
  input.load = {3, 1, 1, 1};
  EXPECT_DOUBLE_EQ(Imbalance(input, even), 1.5);
  input.members[0].speed = 3;
  input.load = {3, 1, 3, 1};
  EXPECT_DOUBLE_EQ(Imbalance(input, even), 1);
}

}  // namespace
}  // namespace bottega
