// Pair streams against a whole expert server, over the in-process network.
#include "expert-worker/ops/connect.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "bottega/internal/v1/expert.pb.h"
#include "core/service/local_network.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
using internal::v1::PairFromAttention;
using internal::v1::PairFromExpert;
constexpr NodeId kExpertNode{1}, kHubNode{2}, kClientNode{3};
constexpr char kMethod[] = "/bottega.internal.v1.Expert/Pair";

class NoExperts : public ExpertCompute {
 public:
  absl::Status Load(LayerId, ExpertId expert) override {
    return expert.value == 3 ? absl::DataLossError("CRC") : absl::OkStatus();
  }
  void Unload(LayerId, ExpertId) override {}
  void Run(LayerId, absl::Span<const ExpertRows>) override {}
};

struct Outcome {
  absl::StatusOr<PairFromExpert> first = absl::UnknownError("nothing");
  absl::Status end;
};

// Pairs over an endpoint of `transport`, if it is given one.
Task<void> PairWith(Loop& loop, Network& network, std::string address, PairFromAttention message,
                    Transport* transport, Duration stay, Outcome* out) {
  absl::StatusOr<std::unique_ptr<ByteStream>> bytes =
      co_await network.Connect(kClientNode, address, kMethod, loop.Now() + 1s);
  if (!bytes.ok()) co_return;
  MessageStream<PairFromAttention, PairFromExpert> stream(*std::move(bytes));
  absl::Status sent = stream.Send(message);
  out->first = co_await stream.Receive(loop.Now() + 5s);
  if (!out->first.ok()) co_return;
  if (transport != nullptr) {
    absl::StatusOr<EndpointId> endpoint = transport->Open("loopback");
    EXPECT_TRUE(transport->Connect(*endpoint, out->first->welcome().transport().address()).ok());
    PairFromAttention ready;
    ready.mutable_ready()->mutable_transport()->set_address(transport->address(*endpoint));
    sent = stream.Send(ready);
  }
  absl::StatusOr<PairFromExpert> next = co_await stream.Receive(loop.Now() + stay);
  out->end = next.status();
}

class ConnectTest : public testing::Test {
 protected:
  ConnectTest()
      : loop_(Loop::Simulated(1)),
        network_(*loop_),
        hub_(*loop_, kHubNode),
        context_{*loop_,        kExpertNode,     network_, registry_, faults_,
                 Role::kExpert, Incarnation{60}, "expert", Logger()},
        mine_(hub_.Open("expert")),
        theirs_(hub_.Open("attention")) {
    ExpertConfig config;
    config.listen = "expert";
    config.credits = 77;
    ExpertModel model;
    model.digest = "digest";
    model.numerics_id = "numerics";
    model.shape = {.layers = 2, .experts = 4, .top_k = 2, .hidden = 8, .row_type = DType::kBF16};
    server_ = std::make_unique<ExpertServer>(context_, config, model, std::make_unique<NoExperts>(),
                                             *mine_);
    EXPECT_TRUE(server_->Start().ok());
    hello_.mutable_hello()->set_incarnation(50);
    hello_.mutable_hello()->set_name("attention");
    hello_.mutable_hello()->set_protocol(1);
    hello_.mutable_hello()->set_model_digest("digest");
    hello_.mutable_hello()->set_numerics_id("numerics");
    hello_.mutable_hello()->mutable_offer()->add_kinds("loopback");
  }
  ~ConnectTest() override { loop_->Kill(kClientNode); }

  void Pair(Duration stay = 10ms) {
    loop_->Spawn(kClientNode, PairWith(*loop_, network_, server_->address(), hello_, theirs_.get(),
                                       stay, &out_));
  }

  std::unique_ptr<Loop> loop_;
  LocalNetwork network_;
  LoopbackHub hub_;
  prometheus::Registry registry_;
  FaultPoints faults_;
  ServiceContext context_;
  std::unique_ptr<LoopbackTransport> mine_, theirs_;
  std::unique_ptr<ExpertServer> server_;
  PairFromAttention hello_;
  Outcome out_;
};

TEST_F(ConnectTest, WelcomesAndLastsAsLongAsTheStream) {
  Pair(300ms);
  loop_->RunUntil(Time(100ms));
  ASSERT_TRUE(out_.first.ok()) << out_.first.status();
  const auto& welcome = out_.first->welcome();
  EXPECT_EQ(welcome.incarnation(), 60u);
  EXPECT_NE(welcome.session_key(), 0u);
  EXPECT_EQ(welcome.credits(), 77u);
  EXPECT_EQ(welcome.transport().kind(), "loopback");
  EXPECT_EQ(theirs_->stats().front().up, 1u);
  EXPECT_GT(welcome.cost().row_us(), 0);
  EXPECT_EQ(server_->engine().pairs(), 1u);
  loop_->RunUntil(Time(1s));
  EXPECT_EQ(server_->engine().pairs(), 0u);
}

TEST_F(ConnectTest, EverySessionHasItsOwnKey) {
  Pair();
  loop_->RunUntil(Time(1s));
  const uint64_t first = out_.first->welcome().session_key();
  Pair();
  loop_->RunUntil(Time(2s));
  EXPECT_NE(out_.first->welcome().session_key(), first);
}

TEST_F(ConnectTest, O12_D9_RefusesOtherTerms) {
  const std::function<void(internal::v1::PairHello&)> edits[] = {
      [](auto& h) { h.set_protocol(2); },
      [](auto& h) { h.set_model_digest("another"); },
      [](auto& h) { h.set_numerics_id("another"); },
      [](auto& h) { h.mutable_offer()->set_kinds(0, "tcp"); },
      [](auto& h) { h.clear_offer(); },
  };
  const PairFromAttention good = hello_;
  for (const auto& edit : edits) {
    hello_ = good;
    edit(*hello_.mutable_hello());
    Pair();
    loop_->RunUntil(loop_->Now() + 1s);
    EXPECT_EQ(out_.first.status().code(), absl::StatusCode::kFailedPrecondition)
        << out_.first.status();
    EXPECT_EQ(server_->engine().pairs(), 0u);
  }
}

TEST_F(ConnectTest, RefusesWhoSaysNoHelloOrIsNotThere) {
  hello_ = {};
  Pair();
  loop_->RunUntil(Time(3s));
  EXPECT_FALSE(out_.first.ok());
  hello_.mutable_hello()->set_protocol(1);
  EXPECT_EQ(server_->engine().pairs(), 0u);
}

TEST_F(ConnectTest, ALostEndpointEndsTheStream) {
  Pair(5s);
  loop_->RunUntil(Time(10ms));
  ASSERT_TRUE(out_.first.ok());
  theirs_.reset();
  loop_->RunUntil(Time(1s));
  EXPECT_FALSE(out_.end.ok());
  EXPECT_NE(out_.end.code(), absl::StatusCode::kDeadlineExceeded);
}

// What is assigned is loaded; what cannot be is not served, and is tried again.
TEST_F(ConnectTest, LoadsWhatIsAssigned) {
  std::vector<ExpertRef> refs;
  for (uint16_t e = 0; e < 4; ++e) refs.push_back({LayerId{1}, ExpertId{e}});
  refs.push_back({LayerId{99}, ExpertId{1}});  // no such layer
  server_->Assign(refs);
  loop_->RunUntil(Time(100ms));
  EXPECT_EQ(server_->engine().held().size(), 3u);
  EXPECT_FALSE(server_->engine().held().Holds(LayerId{1}, ExpertId{3}));
  EXPECT_EQ(server_->loader().missing(), 1u);
  EXPECT_EQ(server_->engine().stats().load_failures, 1u);
  loop_->RunUntil(Time(5s));
  EXPECT_GT(server_->engine().stats().load_failures, 2u);
  server_->Assign({refs[0]});
  loop_->RunUntil(Time(6s));
  EXPECT_EQ(server_->engine().held().size(), 1u);
}

}  // namespace
}  // namespace bottega
