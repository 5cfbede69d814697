#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/strong_id.h"

namespace bottega {

enum class Role : uint8_t { kGateway, kRouter, kAttention, kExpert };
enum class MemberState : uint8_t { kJoining, kActive, kDraining, kSuspect, kDead, kQuarantined };

struct Member {
  MemberId id;
  Incarnation incarnation;  // replies of an old incarnation are dropped
  Role role = Role::kExpert;
  std::string name;
  std::string control_address;  // host:port
  std::string admin_address;    // host:port
  std::string device;
  double speed = 1;
  uint32_t protocol_min = 1;
  uint32_t protocol_max = 1;
  MemberState state = MemberState::kJoining;
  std::string numerics_id;
};

// One expert of one layer: the unit of placement.
struct ExpertRef {
  LayerId layer;
  ExpertId expert;
  friend auto operator<=>(const ExpertRef&, const ExpertRef&) = default;
};

// Who is alive and who serves which expert: one value, one version, (term, epoch). Immutable once
// published; readers take a snapshot per step. Serves every change alike: join, failure, drain,
// scaling, replication, moving a hot expert.
struct ClusterTable {
  uint64_t term = 0;   // grows with each writer
  uint64_t epoch = 0;  // grows with each change
  std::string model_digest;
  uint32_t layers = 0;
  uint32_t experts = 0;                // per layer
  std::vector<uint32_t> dense_layers;  // without experts, ascending
  std::vector<Member> members;
  std::vector<std::vector<MemberId>> replicas;  // [layer * experts + expert] → ready, ascending id

  const Member* Find(MemberId id) const {
    for (const Member& member : members) {
      if (member.id == id) return &member;
    }
    return nullptr;
  }
  const std::vector<MemberId>& ReplicasOf(LayerId layer, ExpertId expert) const {
    return replicas[size_t{layer.value} * experts + expert.value];
  }
};

// False before the first worker: a table without layers serves nobody.
inline bool EveryExpertHasAReplica(const ClusterTable& table) {
  for (size_t key = 0; key < table.replicas.size(); ++key) {
    const auto layer = static_cast<uint32_t>(key / table.experts);
    if (table.replicas[key].empty() &&
        !std::binary_search(table.dense_layers.begin(), table.dense_layers.end(), layer)) {
      return false;
    }
  }
  return table.layers > 0;
}

using TableSnapshot = std::shared_ptr<const ClusterTable>;

}  // namespace bottega
