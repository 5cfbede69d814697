#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bottega/internal/v1/types.pb.h"
#include "core/cluster/table.h"

namespace bottega {

// The cluster table and its parts, to and from proto. What comes from a peer is checked in full:
// sizes by core/base/limits.h, unique members, known enums, replicas that exist, ascending, and are
// expert workers. InvalidArgument names what is wrong.

internal::v1::Member EncodeMember(const Member& member);
absl::StatusOr<Member> DecodeMember(const internal::v1::Member& wire);

internal::v1::ClusterTable EncodeTable(const ClusterTable& table);
absl::StatusOr<ClusterTable> DecodeTable(const internal::v1::ClusterTable& wire);

// As people read them: "expert", "suspect"; "?" for what a newer peer may say.
std::string_view RoleName(internal::v1::Role role);
std::string_view StateName(internal::v1::MemberState state);

using ExpertRefs = google::protobuf::RepeatedPtrField<internal::v1::ExpertRef>;
void EncodeExperts(const std::vector<ExpertRef>& experts, ExpertRefs* wire);
// Ascending and unique afterwards; each inside layers x experts.
absl::StatusOr<std::vector<ExpertRef>> DecodeExperts(const ExpertRefs& wire, uint32_t layers,
                                                     uint32_t experts);

}  // namespace bottega
