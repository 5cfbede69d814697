#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace bottega {

// An integer that mixes with no other: StrongId<struct ExpertTag, uint16_t>.
template <class Tag, class Rep>
struct StrongId {
  Rep value{};
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  template <class H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value);
  }
};

using NodeId = StrongId<struct NodeTag, uint32_t>;      // one simulated or real process on a Loop
using MemberId = StrongId<struct MemberTag, uint32_t>;  // a worker in the cluster table
using Incarnation = StrongId<struct IncarnationTag, uint64_t>;  // new at every start of a process
using ExpertId = StrongId<struct ExpertTag, uint16_t>;
using LayerId = StrongId<struct LayerTag, uint16_t>;

}  // namespace bottega

template <class Tag, class Rep>
struct std::hash<bottega::StrongId<Tag, Rep>> {
  size_t operator()(bottega::StrongId<Tag, Rep> id) const { return std::hash<Rep>()(id.value); }
};
