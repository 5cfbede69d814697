#include "core/service/table_codec.h"

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/service/status_codec.h"

namespace bottega {
namespace {

ClusterTable Example() {
  ClusterTable table;
  table.term = 1795000000000;
  table.epoch = 42;
  table.model_digest = "abc";
  table.layers = 3;
  table.experts = 4;
  table.dense_layers = {0};
  for (uint32_t id = 1; id <= 4; ++id) {
    Member member;
    member.id = MemberId{id};
    member.incarnation = Incarnation{id * 0x100000001ull};
    member.role = id == 4 ? Role::kAttention : Role::kExpert;
    member.name = "member-" + std::to_string(id);
    member.control_address = "127.0.0.1:" + std::to_string(id);
    member.device = "cpu";
    member.speed = 1.5;
    member.state = id == 2 ? MemberState::kSuspect : MemberState::kActive;
    member.numerics_id = "n1";
    table.members.push_back(member);
  }
  table.replicas.resize(12);
  for (size_t key = 4; key < 12; ++key) table.replicas[key] = {MemberId{1}, MemberId{3}};
  return table;
}

TEST(TableCodec, ATableSurvivesTheTrip) {
  const ClusterTable table = Example();
  absl::StatusOr<ClusterTable> back = DecodeTable(EncodeTable(table));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(EncodeTable(*back).SerializeAsString(), EncodeTable(table).SerializeAsString());
  EXPECT_EQ(back->replicas, table.replicas);
  EXPECT_EQ(back->dense_layers, table.dense_layers);
  EXPECT_EQ(back->members[1].state, MemberState::kSuspect);
  EXPECT_EQ(back->members[3].role, Role::kAttention);
}

TEST(TableCodec, NonsenseIsRefused) {
  using Wire = internal::v1::ClusterTable;
  const std::vector<std::pair<const char*, std::function<void(Wire&)>>> damages = {
      {"layers", [](Wire& t) { t.set_layers(1u << 31); }},
      {"experts", [](Wire& t) { t.set_experts(5); }},
      {"product", [](Wire& t) { t.set_layers(1024), t.set_experts(4096); }},
      {"replica lists", [](Wire& t) { t.add_replicas(); }},
      {"id 0", [](Wire& t) { t.mutable_members(0)->set_id(0); }},
      {"id twice", [](Wire& t) { t.mutable_members(0)->set_id(2); }},
      {"role", [](Wire& t) { t.mutable_members(0)->set_role(internal::v1::ROLE_UNSPECIFIED); }},
      {"role 99", [](Wire& t) { t.mutable_members(0)->set_role(internal::v1::Role(99)); }},
      {"state", [](Wire& t) { t.mutable_members(0)->set_state(internal::v1::MemberState(99)); }},
      {"name", [](Wire& t) { t.mutable_members(0)->set_name(""); }},
      {"long name", [](Wire& t) { t.mutable_members(0)->set_name(std::string(1000, 'x')); }},
      {"address",
       [](Wire& t) { t.mutable_members(0)->set_control_address(std::string(1000, 'x')); }},
      {"speed", [](Wire& t) { t.mutable_members(0)->set_speed(std::nan("")); }},
      {"protocol", [](Wire& t) { t.mutable_members(0)->mutable_protocol()->set_min(9); }},
      {"unknown replica", [](Wire& t) { t.mutable_replicas(5)->add_member_ids(77); }},
      {"replica twice", [](Wire& t) { t.mutable_replicas(5)->add_member_ids(3); }},
      {"replica on attention", [](Wire& t) { t.mutable_replicas(5)->add_member_ids(4); }},
      {"dense layer", [](Wire& t) { t.add_dense_layers(3); }},
      {"dense twice", [](Wire& t) { t.add_dense_layers(0); }},
  };
  for (const auto& [what, damage] : damages) {
    Wire wire = EncodeTable(Example());
    damage(wire);
    EXPECT_TRUE(absl::IsInvalidArgument(DecodeTable(wire).status())) << what;
  }
}

TEST(TableCodec, RandomBytesNeverHarm) {
  google::protobuf::LogSilencer silence;
  std::mt19937_64 random(1);
  const std::string bytes = EncodeTable(Example()).SerializeAsString();
  int decoded = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string damaged = bytes;
    for (int change = 0; change < 3; ++change) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    internal::v1::ClusterTable wire;
    if (!wire.ParseFromString(damaged)) continue;
    decoded += DecodeTable(wire).ok();
  }
  EXPECT_GT(decoded, 0);
}

TEST(TableCodec, ExpertsAreSortedAndChecked) {
  ExpertRefs wire;
  EncodeExperts({{LayerId{2}, ExpertId{1}}, {LayerId{1}, ExpertId{3}}, {LayerId{2}, ExpertId{1}}},
                &wire);
  absl::StatusOr<std::vector<ExpertRef>> experts = DecodeExperts(wire, 3, 4);
  ASSERT_TRUE(experts.ok());
  ASSERT_EQ(experts->size(), 2u);
  EXPECT_EQ(experts->front(), (ExpertRef{LayerId{1}, ExpertId{3}}));
  EXPECT_FALSE(DecodeExperts(wire, 2, 4).ok());
  EXPECT_FALSE(DecodeExperts(wire, 3, 3).ok());
  EXPECT_FALSE(DecodeExperts(wire, 1u << 31, 4).ok());
}

TEST(StatusCodec, CarriesReasonAndParameterAndIsBounded) {
  const absl::Status status = MakeError(Reason::kQueueFull, std::string(5000, 'x'), "model");
  const std::string bytes = EncodeStatus(status);
  EXPECT_LT(bytes.size(), 2000u);
  const absl::Status back = DecodeStatus(bytes, absl::OkStatus());
  EXPECT_EQ(ReasonOf(back), Reason::kQueueFull);
  EXPECT_EQ(ParamOf(back), "model");
  EXPECT_EQ(back.code(), status.code());
  EXPECT_TRUE(absl::IsInternal(DecodeStatus("\xff\xff", absl::InternalError(""))));
}

}  // namespace
}  // namespace bottega
