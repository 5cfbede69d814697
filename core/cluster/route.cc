#include "core/cluster/route.h"

#include <algorithm>
#include <limits>

namespace bottega {
namespace {

uint64_t Mix(uint64_t z) {  // the finaliser of splitmix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

uint64_t Preference(LayerId layer, ExpertId expert, MemberId member) {
  const uint64_t key = uint64_t{layer.value} << 48 | uint64_t{expert.value} << 32 | member.value;
  return Mix(key + 0x9e3779b97f4a7c15ull);
}

// Calls fn(index in query.members) for every member that may compute `expert`.
template <class Fn>
void ForEachCandidate(const RouteQuery& query, ExpertId expert, const Fn& fn) {
  for (MemberId replica : query.table.ReplicasOf(query.layer, expert)) {
    const auto it =
        std::lower_bound(query.members.begin(), query.members.end(), replica,
                         [](const RouteMember& m, MemberId id) { return m.member < id; });
    if (it == query.members.end() || it->member != replica) continue;
    const bool refused = std::any_of(
        query.refused.begin(), query.refused.end(),
        [&](const RouteRefusal& r) { return r.member == replica && r.expert == expert; });
    if (!refused) fn(static_cast<int32_t>(it - query.members.begin()));
  }
}

bool InTable(const RouteQuery& query, ExpertId expert) {
  return query.layer.value < query.table.layers && expert.value < query.table.experts &&
         size_t{query.layer.value} * query.table.experts + expert.value <
             query.table.replicas.size();
}

}  // namespace

void Route(const RouteQuery& query, Routing* out) {
  out->member_of.assign(query.need.size(), Routing::kNobody);
  out->finish_us.resize(query.members.size());
  out->used_.assign(query.members.size(), false);
  for (size_t m = 0; m < query.members.size(); ++m) {
    out->finish_us[m] = query.members[m].ready_us;
  }

  // 1. Who has no choice goes first, then big before small.
  out->order_.clear();
  for (uint32_t n = 0; n < query.need.size(); ++n) {
    if (!InTable(query, query.need[n].expert)) continue;
    uint32_t candidates = 0;
    ForEachCandidate(query, query.need[n].expert, [&](int32_t) { ++candidates; });
    if (candidates > 0) out->order_.push_back({n, candidates});
  }
  std::sort(out->order_.begin(), out->order_.end(),
            [&](const Routing::Choice& a, const Routing::Choice& b) {
              if ((a.candidates == 1) != (b.candidates == 1)) return a.candidates == 1;
              if (query.need[a.need].rows != query.need[b.need].rows) {
                return query.need[a.need].rows > query.need[b.need].rows;
              }
              return a.need < b.need;
            });

  // 2. Each where it is done soonest.
  for (const Routing::Choice& choice : out->order_) {
    const RouteNeed& need = query.need[choice.need];
    int32_t best = Routing::kNobody;
    double best_finish = 0, best_score = std::numeric_limits<double>::infinity();
    auto better = [&](int32_t m, double score) {
      if (best == Routing::kNobody || score != best_score) return score < best_score;
      if (out->used_[m] != out->used_[best]) return bool{out->used_[m]};
      return Preference(query.layer, need.expert, query.members[m].member) >
             Preference(query.layer, need.expert, query.members[best].member);
    };
    ForEachCandidate(query, need.expert, [&](int32_t m) {
      const RouteMember& member = query.members[m];
      // One more frame costs its worker base_us that grouping would save: it counts twice, as time
      // of this dispatch and as time of everybody's.
      const double base = out->used_[m] ? 0 : member.base_us;
      const double finish =
          out->finish_us[m] + base + member.row_us * static_cast<double>(need.rows);
      if (better(m, finish + base)) {
        best = m;
        best_finish = finish;
        best_score = finish + base;
      }
    });
    // An infinite or NaN prediction is still better than nobody.
    if (best == Routing::kNobody) {
      ForEachCandidate(query, need.expert, [&](int32_t m) { best = m; });
      best_finish = out->finish_us[best];
    }
    out->member_of[choice.need] = best;
    out->finish_us[best] = best_finish;
    out->used_[best] = true;
  }
}

}  // namespace bottega
