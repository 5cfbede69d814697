#include <gtest/gtest.h>

#include "bottega/internal/v1/membership.pb.h"
#include "core/service/table_codec.h"
#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

namespace wire = internal::v1;
using namespace std::chrono_literals;

constexpr char kRouter[] = "router:1";
constexpr NodeId kRouterNode{300};

// Says the same to everyone who asks.
class FakeRouter {
 public:
  FakeRouter(Loop& loop, Network& network, wire::StatusReply reply)
      : loop_(loop), network_(network), reply_(std::move(reply)) {
    absl::StatusOr<std::string> address = network_.Serve(
        kRouterNode, kRouter,
        {{"/bottega.internal.v1.Cluster/Status",
          [this](std::unique_ptr<ByteStream> bytes) { return Serve(this, std::move(bytes)); }}});
    EXPECT_TRUE(address.ok()) << address.status();
  }
  ~FakeRouter() {
    network_.Shutdown(kRouterNode);
    loop_.Kill(kRouterNode);
  }
  int asked = 0;

 private:
  static Task<void> Serve(FakeRouter* self, std::unique_ptr<ByteStream> bytes) {
    MessageStream<wire::StatusReply, wire::StatusRequest> stream(std::move(bytes));
    while (true) {
      absl::StatusOr<wire::StatusRequest> request = co_await stream.Receive();
      if (!request.ok()) co_return;
      ++self->asked;
      if (!stream.Send(self->reply_).ok()) co_return;
    }
  }

  Loop& loop_;
  Network& network_;
  const wire::StatusReply reply_;
};

wire::StatusReply Example() {
  ClusterTable table{.term = 7, .epoch = 12, .layers = 2, .experts = 3, .dense_layers = {0}};
  table.members = {Member{.id = MemberId{4},
                          .incarnation = Incarnation{0xabcdef0123456789},
                          .role = Role::kExpert,
                          .name = "expert-0",
                          .control_address = "10.0.0.1:5",
                          .admin_address = "10.0.0.1:6",
                          .state = MemberState::kSuspect}};
  table.replicas.resize(6);
  table.replicas[4] = {MemberId{4}};
  wire::StatusReply reply;
  *reply.mutable_table() = EncodeTable(table);
  reply.set_router_name("router-1");
  for (float rows : {0.f, 0.f, 0.f, 0.f, 12.6f, 0.f}) reply.add_expert_rows(rows);
  wire::MemberStatus* status = reply.add_members();
  status->set_id(4);
  status->set_heartbeat_age_ms(40);
  status->set_held(1);
  status->set_assigned(2);
  status->set_load(12.5);
  return reply;
}

class ClusterRouteTest : public testing::Test {
 protected:
  ~ClusterRouteTest() override {
    if (router_ != nullptr) h.OnLoop([this] { router_.reset(); });
  }
  void StartWith(wire::StatusReply reply) {
    h.Start();
    h.OnLoop([&] {
      router_ = std::make_unique<FakeRouter>(*h.loop, h.network, std::move(reply));
      h.server().KnowRouters(kRouter);
    });
  }

  GatewayHarness h;
  std::unique_ptr<FakeRouter> router_;
};

TEST_F(ClusterRouteTest, WhatTheRouterKnowsIsPassedOn) {
  StartWith(Example());
  const HttpClient::Response response = h.Call("GET", "/v1/cluster");
  ASSERT_EQ(response.status, 200) << response.body;
  const Json cluster = response.json();
  EXPECT_EQ(cluster["object"], "cluster");
  EXPECT_EQ(cluster["router"], "router-1");
  EXPECT_EQ(cluster["epoch"], 12);
  EXPECT_EQ(cluster["layers"], 2);
  EXPECT_EQ(cluster["experts"], 3);
  EXPECT_EQ(cluster["dense_layers"], Json::array({0}));
  EXPECT_EQ(cluster["members"], Json::parse(R"([{"id": 4, "name": "expert-0", "role": "expert",
      "state": "suspect", "incarnation": "abcdef0123456789", "heartbeat_age_ms": 40, "load": 12.5,
      "experts_held": 1, "experts_assigned": 2}])"));
  EXPECT_EQ(cluster["replicas"], Json::parse("[[[],[],[]],[[],[4],[]]]"));
  EXPECT_EQ(cluster["rows"], Json::parse("[[0,0,0],[0,13,0]]"));
  EXPECT_EQ(response.body.find("10.0.0.1"), std::string::npos) << "clients learn no addresses";
}

TEST_F(ClusterRouteTest, TheRouterIsAskedTwiceASecondAtMostHoweverManyLook) {
  StartWith(Example());
  for (int i = 0; i < 20; ++i) EXPECT_EQ(h.Call("GET", "/v1/cluster").status, 200);
  h.OnLoop([this] { EXPECT_LE(router_->asked, 10); });
}

TEST_F(ClusterRouteTest, WithoutARouterTheGatewaysOwnTableIsShown) {
  h.AddWorker(Saying("ok"));
  h.Start();
  const Json cluster = h.Call("GET", "/v1/cluster").json();
  EXPECT_TRUE(cluster["router"].is_null());
  EXPECT_TRUE(cluster["rows"].is_null());
  EXPECT_EQ(cluster["members"][0]["name"], "attention-1");
  EXPECT_FALSE(cluster["members"][0].contains("load"));
}

TEST_F(ClusterRouteTest, ATableThatContradictsItselfIsNotPassedOn) {
  wire::StatusReply twisted = Example();
  twisted.mutable_expert_rows()->RemoveLast();
  StartWith(std::move(twisted));
  const HttpClient::Response response = h.Call("GET", "/v1/cluster");
  EXPECT_EQ(response.status, 200) << response.body;
  EXPECT_TRUE(response.json()["router"].is_null()) << "the gateway's own";
}

}  // namespace
}  // namespace bottega::gateway
