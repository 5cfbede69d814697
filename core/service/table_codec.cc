#include "core/service/table_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/limits.h"
#include "core/base/status.h"

namespace bottega {
namespace {

absl::Status Invalid(std::string message) {
  return absl::InvalidArgumentError("cluster table: " + message);
}

// The enums' numbers differ by one: UNSPECIFIED is 0 on the wire.
template <class Wire, class T>
Wire Shift(T value) {
  return static_cast<Wire>(static_cast<int>(value) + 1);
}

absl::Status CheckLayersAndExperts(uint32_t layers, uint32_t experts) {
  if (layers > static_cast<uint32_t>(limits::kLayersMax)) return Invalid("layers > kLayersMax");
  if (experts > static_cast<uint32_t>(limits::kExpertsMax)) return Invalid("experts > kExpertsMax");
  if (uint64_t{layers} * experts > limits::kTableExpertsMax) {
    return Invalid("layers * experts > kTableExpertsMax");
  }
  return absl::OkStatus();
}

}  // namespace

internal::v1::Member EncodeMember(const Member& member) {
  internal::v1::Member wire;
  wire.set_id(member.id.value);
  wire.set_incarnation(member.incarnation.value);
  wire.set_role(Shift<internal::v1::Role>(member.role));
  wire.set_name(member.name);
  wire.set_control_address(member.control_address);
  wire.set_admin_address(member.admin_address);
  wire.set_device(member.device);
  wire.set_speed(member.speed);
  wire.mutable_protocol()->set_min(member.protocol_min);
  wire.mutable_protocol()->set_max(member.protocol_max);
  wire.set_state(Shift<internal::v1::MemberState>(member.state));
  wire.set_numerics_id(member.numerics_id);
  return wire;
}

absl::StatusOr<Member> DecodeMember(const internal::v1::Member& wire) {
  if (wire.role() < internal::v1::ROLE_GATEWAY || wire.role() > internal::v1::ROLE_EXPERT) {
    return Invalid(fmt::format("member role {}", static_cast<int>(wire.role())));
  }
  if (wire.state() < internal::v1::MEMBER_STATE_UNSPECIFIED ||
      wire.state() > internal::v1::MEMBER_STATE_QUARANTINED) {
    return Invalid(fmt::format("member state {}", static_cast<int>(wire.state())));
  }
  if (wire.name().empty() || wire.name().size() > limits::kMemberNameBytesMax ||
      wire.device().size() > limits::kMemberNameBytesMax ||
      wire.numerics_id().size() > limits::kMemberNameBytesMax) {
    return Invalid("member name, device or numerics id empty or longer than kMemberNameBytesMax");
  }
  if (wire.control_address().size() > limits::kAddressBytesMax ||
      wire.admin_address().size() > limits::kAddressBytesMax) {
    return Invalid("address longer than kAddressBytesMax");
  }
  if (!(wire.speed() >= 0) || !std::isfinite(wire.speed())) return Invalid("speed");
  if (wire.protocol().min() > wire.protocol().max()) return Invalid("protocol range");
  Member member;
  member.id = MemberId{wire.id()};
  member.incarnation = Incarnation{wire.incarnation()};
  member.role = static_cast<Role>(wire.role() - 1);
  member.name = wire.name();
  member.control_address = wire.control_address();
  member.admin_address = wire.admin_address();
  member.device = wire.device();
  member.speed = wire.speed();
  member.protocol_min = wire.protocol().min();
  member.protocol_max = wire.protocol().max();
  if (wire.state() != internal::v1::MEMBER_STATE_UNSPECIFIED) {
    member.state = static_cast<MemberState>(wire.state() - 1);
  }
  member.numerics_id = wire.numerics_id();
  return member;
}

internal::v1::ClusterTable EncodeTable(const ClusterTable& table) {
  internal::v1::ClusterTable wire;
  wire.set_term(table.term);
  wire.set_epoch(table.epoch);
  wire.set_model_digest(table.model_digest);
  wire.set_layers(table.layers);
  wire.set_experts(table.experts);
  for (uint32_t layer : table.dense_layers) wire.add_dense_layers(layer);
  for (const Member& member : table.members) *wire.add_members() = EncodeMember(member);
  for (const std::vector<MemberId>& replicas : table.replicas) {
    auto* ids = wire.add_replicas()->mutable_member_ids();
    for (MemberId id : replicas) ids->Add(id.value);
  }
  return wire;
}

absl::StatusOr<ClusterTable> DecodeTable(const internal::v1::ClusterTable& wire) {
  RETURN_IF_ERROR(CheckLayersAndExperts(wire.layers(), wire.experts()));
  if (static_cast<size_t>(wire.members_size()) > limits::kMembersMax) {
    return Invalid("members > kMembersMax");
  }
  if (static_cast<uint64_t>(wire.replicas_size()) != uint64_t{wire.layers()} * wire.experts()) {
    return Invalid(fmt::format("{} replica lists for {} layers of {} experts", wire.replicas_size(),
                               wire.layers(), wire.experts()));
  }
  ClusterTable table;
  table.term = wire.term();
  table.epoch = wire.epoch();
  table.model_digest = wire.model_digest().substr(0, limits::kMemberNameBytesMax);
  table.layers = wire.layers();
  table.experts = wire.experts();
  for (uint32_t layer : wire.dense_layers()) {
    if (layer >= wire.layers() ||
        (!table.dense_layers.empty() && table.dense_layers.back() >= layer)) {
      return Invalid("dense layers");
    }
    table.dense_layers.push_back(layer);
  }
  std::set<uint32_t> ids, expert_workers;
  for (const internal::v1::Member& wire_member : wire.members()) {
    absl::StatusOr<Member> member = DecodeMember(wire_member);
    if (!member.ok()) return member.status();
    if (member->id.value == 0 || !ids.insert(member->id.value).second) {
      return Invalid(fmt::format("member id {} twice or 0", member->id.value));
    }
    if (member->role == Role::kExpert) expert_workers.insert(member->id.value);
    table.members.push_back(*std::move(member));
  }
  table.replicas.reserve(wire.replicas_size());
  for (const internal::v1::Replicas& wire_replicas : wire.replicas()) {
    std::vector<MemberId>& replicas = table.replicas.emplace_back();
    for (uint32_t id : wire_replicas.member_ids()) {
      if (!replicas.empty() && replicas.back().value >= id)
        return Invalid("replicas not ascending");
      if (!expert_workers.contains(id)) {
        return Invalid(fmt::format("replica on {}, which is no expert worker", id));
      }
      replicas.push_back(MemberId{id});
    }
  }
  return table;
}

void EncodeExperts(const std::vector<ExpertRef>& experts, ExpertRefs* wire) {
  wire->Clear();
  wire->Reserve(static_cast<int>(experts.size()));
  for (const ExpertRef& expert : experts) {
    auto* added = wire->Add();
    added->set_layer(expert.layer.value);
    added->set_expert(expert.expert.value);
  }
}

absl::StatusOr<std::vector<ExpertRef>> DecodeExperts(const ExpertRefs& wire, uint32_t layers,
                                                     uint32_t experts) {
  RETURN_IF_ERROR(CheckLayersAndExperts(layers, experts));
  if (static_cast<uint64_t>(wire.size()) > uint64_t{layers} * experts) {
    return Invalid("more experts held than there are");
  }
  std::vector<ExpertRef> result;
  result.reserve(wire.size());
  for (const internal::v1::ExpertRef& ref : wire) {
    if (ref.layer() >= layers || ref.expert() >= experts) {
      return Invalid(
          fmt::format("expert {} of layer {} does not exist", ref.expert(), ref.layer()));
    }
    result.push_back(ExpertRef{LayerId{static_cast<uint16_t>(ref.layer())},
                               ExpertId{static_cast<uint16_t>(ref.expert())}});
  }
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

std::string_view RoleName(internal::v1::Role role) {
  switch (role) {
    case internal::v1::ROLE_GATEWAY:
      return "gateway";
    case internal::v1::ROLE_ROUTER:
      return "router";
    case internal::v1::ROLE_ATTENTION:
      return "attention";
    case internal::v1::ROLE_EXPERT:
      return "expert";
    default:
      return "?";
  }
}

std::string_view StateName(internal::v1::MemberState state) {
  switch (state) {
    case internal::v1::MEMBER_STATE_JOINING:
      return "joining";
    case internal::v1::MEMBER_STATE_ACTIVE:
      return "active";
    case internal::v1::MEMBER_STATE_DRAINING:
      return "draining";
    case internal::v1::MEMBER_STATE_SUSPECT:
      return "suspect";
    case internal::v1::MEMBER_STATE_DEAD:
      return "dead";
    case internal::v1::MEMBER_STATE_QUARANTINED:
      return "quarantined";
    default:
      return "?";
  }
}

}  // namespace bottega
