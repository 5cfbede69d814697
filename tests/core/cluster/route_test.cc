#include "core/cluster/route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace bottega {
namespace {

constexpr LayerId kLayer{2};
constexpr uint32_t kExperts = 64;

// Expert e of every layer is on the members `replicas(e)`.
template <class Fn>
ClusterTable MakeTable(const Fn& replicas) {
  ClusterTable table;
  table.layers = 4;
  table.experts = kExperts;
  for (uint32_t i = 0; i < table.layers * table.experts; ++i) {
    table.replicas.push_back(replicas(i % kExperts));
  }
  return table;
}

ClusterTable TwoCopies() {  // on e mod 4 and the next
  return MakeTable([](uint32_t e) {
    std::vector<MemberId> ids = {MemberId{e % 4 + 1}, MemberId{(e + 1) % 4 + 1}};
    std::sort(ids.begin(), ids.end());
    return ids;
  });
}

std::vector<RouteMember> Members(uint32_t n, double base_us = 100, double row_us = 10) {
  std::vector<RouteMember> members;
  for (uint32_t i = 1; i <= n; ++i) members.push_back({MemberId{i}, 0, base_us, row_us});
  return members;
}

std::vector<RouteNeed> AllExperts(uint32_t rows = 1) {
  std::vector<RouteNeed> need;
  for (uint16_t e = 0; e < kExperts; ++e) need.push_back({ExpertId{e}, rows});
  return need;
}

std::vector<uint32_t> RowsPerMember(const RouteQuery& query, const Routing& routing) {
  std::vector<uint32_t> rows(query.members.size());
  for (size_t n = 0; n < query.need.size(); ++n) {
    if (routing.member_of[n] >= 0) rows[routing.member_of[n]] += query.need[n].rows;
  }
  return rows;
}

TEST(RouteTest, EveryExpertGoesToOneOfItsReplicas) {
  const ClusterTable table = TwoCopies();
  const auto members = Members(4);
  const auto need = AllExperts();
  Routing routing;
  Route({.table = table, .layer = kLayer, .need = need, .members = members}, &routing);
  for (size_t n = 0; n < need.size(); ++n) {
    ASSERT_GE(routing.member_of[n], 0);
    const auto& replicas = table.ReplicasOf(kLayer, need[n].expert);
    const MemberId chosen = members[routing.member_of[n]].member;
    EXPECT_NE(std::find(replicas.begin(), replicas.end(), chosen), replicas.end());
  }
}

TEST(RouteTest, EqualMembersShareEvenly) {
  const ClusterTable table = TwoCopies();
  const auto members = Members(4);
  const auto need = AllExperts(3);
  const RouteQuery query{.table = table, .layer = kLayer, .need = need, .members = members};
  Routing routing;
  Route(query, &routing);
  for (uint32_t rows : RowsPerMember(query, routing)) EXPECT_NEAR(rows, 48, 6);
}

TEST(RouteTest, WithoutCostsTheHashSpreads) {
  const ClusterTable table = MakeTable([](uint32_t) {
    return std::vector<MemberId>{MemberId{1}, MemberId{2}, MemberId{3}, MemberId{4}};
  });
  const auto members = Members(4, 0, 0);
  std::vector<int> counts(4);
  for (uint16_t e = 0; e < kExperts; ++e) {
    const RouteNeed need[] = {{ExpertId{e}, 1}};
    Routing routing;
    Route({.table = table, .layer = kLayer, .need = need, .members = members}, &routing);
    ++counts[routing.member_of[0]];
  }
  for (int count : counts) EXPECT_GT(count, 6);
}

TEST(RouteTest, ABusyMemberGetsLess) {
  const ClusterTable table = TwoCopies();
  auto members = Members(4);
  members[1].ready_us = 1e6;
  const auto need = AllExperts();
  const RouteQuery query{.table = table, .layer = kLayer, .need = need, .members = members};
  Routing routing;
  Route(query, &routing);
  EXPECT_EQ(RowsPerMember(query, routing)[1], 0u);
}

TEST(RouteTest, AFewRowsStayTogetherWhereTheBaseCostIsPaid) {
  const ClusterTable table = MakeTable([](uint32_t) {
    return std::vector<MemberId>{MemberId{1}, MemberId{2}, MemberId{3}};
  });
  const auto members = Members(3, 1000, 1);
  const RouteNeed need[] = {{ExpertId{3}, 1}, {ExpertId{9}, 1}, {ExpertId{11}, 1}};
  const RouteQuery query{.table = table, .layer = kLayer, .need = need, .members = members};
  Routing routing;
  Route(query, &routing);
  EXPECT_EQ(routing.member_of[0], routing.member_of[1]);
  EXPECT_EQ(routing.member_of[0], routing.member_of[2]);
}

TEST(RouteTest, WhoHasOneReplicaIsPlacedFirst) {
  // Expert 0 only on 1, expert 1 on both: the flexible one must give way.
  const ClusterTable table = MakeTable([](uint32_t e) {
    return e == 0 ? std::vector<MemberId>{MemberId{1}}
                  : std::vector<MemberId>{MemberId{1}, MemberId{2}};
  });
  const auto members = Members(2);
  const RouteNeed need[] = {{ExpertId{0}, 100}, {ExpertId{1}, 100}};
  Routing routing;
  Route({.table = table, .layer = kLayer, .need = need, .members = members}, &routing);
  EXPECT_EQ(routing.member_of[0], 0);
  EXPECT_EQ(routing.member_of[1], 1);
}

TEST(RouteTest, RefusedAndAbsentMembersGetNothing) {
  const ClusterTable table = TwoCopies();
  const auto members = Members(3);  // 4 is in the table but not connected
  const auto need = AllExperts();
  std::vector<RouteRefusal> refused;
  for (uint16_t e = 0; e < kExperts; ++e) {
    for (const MemberId member : {MemberId{2}, MemberId{3}})
      refused.push_back({member, ExpertId{e}});
  }
  Routing routing;
  Route({.table = table, .layer = kLayer, .need = need, .members = members, .refused = refused},
        &routing);
  for (size_t n = 0; n < need.size(); ++n) {
    const uint32_t e = need[n].expert.value;
    const bool on_one = e % 4 == 0 || e % 4 == 3;  // replicas 1,2 or 1,4
    EXPECT_EQ(routing.member_of[n], on_one ? 0 : Routing::kNobody) << e;
  }
}

TEST(RouteTest, StrangeQueriesHaveAnswers) {
  const ClusterTable table = TwoCopies();
  const auto members = Members(4, INFINITY, NAN);
  const RouteNeed need[] = {{ExpertId{1}, 5}, {ExpertId{9999}, 1}};
  Routing routing;
  Route({.table = table, .layer = kLayer, .need = need, .members = members}, &routing);
  EXPECT_GE(routing.member_of[0], 0);
  EXPECT_EQ(routing.member_of[1], Routing::kNobody);
  Route({.table = table, .layer = LayerId{77}, .need = need, .members = members}, &routing);
  EXPECT_EQ(routing.member_of[0], Routing::kNobody);
  Route({.table = ClusterTable{}, .layer = kLayer, .need = need, .members = members}, &routing);
  EXPECT_EQ(routing.member_of[0], Routing::kNobody);
}

// Random tables: the same answer twice, everybody who has a replica is served, and the predicted
// finish is what the assignment costs.
TEST(RouteTest, TheAnswerIsRepeatableAndAddsUp) {
  std::mt19937_64 rng(11);
  for (int round = 0; round < 200; ++round) {
    const uint32_t members_count = 2 + rng() % 6;
    const ClusterTable table = MakeTable([&](uint32_t) {
      std::vector<MemberId> ids;
      for (uint32_t m = 1; m <= members_count; ++m) {
        if (rng() % 2 == 0) ids.push_back(MemberId{m});
      }
      return ids;
    });
    auto members = Members(members_count, static_cast<double>(rng() % 300), 10);
    std::vector<RouteNeed> need;
    for (uint16_t e = 0; e < kExperts; ++e) {
      if (rng() % 3 == 0) need.push_back({ExpertId{e}, 1 + static_cast<uint32_t>(rng() % 20)});
    }
    const RouteQuery query{.table = table, .layer = kLayer, .need = need, .members = members};
    Routing routing, again;
    Route(query, &routing);
    Route(query, &again);
    ASSERT_EQ(routing.member_of, again.member_of);
    for (size_t n = 0; n < need.size(); ++n) {
      ASSERT_EQ(routing.member_of[n] < 0, table.ReplicasOf(kLayer, need[n].expert).empty());
    }
    auto rows = RowsPerMember(query, routing);
    for (size_t m = 0; m < members.size(); ++m) {
      const double expected = rows[m] == 0 ? 0 : members[m].base_us + 10.0 * rows[m];
      ASSERT_NEAR(routing.finish_us[m], expected, 1e-6);
    }
  }
}

}  // namespace
}  // namespace bottega
