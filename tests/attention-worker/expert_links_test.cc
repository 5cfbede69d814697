// How a pair finds its transport: an expert worker and the links to it on a simulated loop, with
// transports that speak two kinds, of which "shm" opens and connects but carries nothing.
#include "attention-worker/expert_links.h"

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "core/service/local_network.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kExpertNode{1}, kAttentionNode{2}, kHubNode{3}, kTimerNode{4};
constexpr ExchangeShape kShape{
    .layers = 1, .experts = 2, .top_k = 1, .hidden = 8, .row_type = DType::kBF16};
constexpr MemberId kExpert{7};

class NoExperts : public ExpertCompute {
 public:
  absl::Status Load(LayerId, ExpertId) override { return absl::OkStatus(); }
  void Unload(LayerId, ExpertId) override {}
  void Run(LayerId, absl::Span<const ExpertRows>) override {}
};

// "tcp" is the loopback.
class TwoKinds : public Transport {
 public:
  TwoKinds(Loop& loop, LoopbackHub& hub, const std::string& name, std::string host)
      : loop_(loop), host_(std::move(host)), network_(hub.Open(name)) {}

  void SetEvents(Events events) override {
    on_down_ = events.on_down;
    network_->SetEvents(std::move(events));
  }
  TransportOffer offer() const override { return {.kinds = {"shm", "tcp"}, .host = host_}; }
  absl::StatusOr<EndpointId> Open(const std::string& kind) override {
    opened.push_back(kind);
    if (kind == "tcp") return network_->Open("loopback");
    if (!shared_memory_opens) return absl::ResourceExhaustedError("/dev/shm is full");
    return EndpointId{++deaf_};
  }
  std::string address(EndpointId id) const override {
    return id.value >= kDeaf ? "deaf" : network_->address(id);
  }
  absl::Status Connect(EndpointId id, const std::string& peer) override {
    if (id.value < kDeaf) return network_->Connect(id, peer);
    loop_.Spawn(kTimerNode, GiveUp(this, id));
    return absl::OkStatus();
  }
  absl::StatusOr<FrameBuffer> Lease(size_t bytes) override { return network_->Lease(bytes); }
  absl::Status Post(EndpointId id, FrameBuffer frame) override {
    return network_->Post(id, std::move(frame));
  }
  void Close(EndpointId id) override { network_->Close(id); }
  std::vector<TransportKindStats> stats() const override { return network_->stats(); }

  bool shared_memory_opens = true;
  std::vector<std::string> opened;

 private:
  static constexpr uint32_t kDeaf = 1'000'000;
  static Task<void> GiveUp(TwoKinds* self, EndpointId id) {
    co_await self->loop_.Sleep(3s);
    if (self->on_down_) self->on_down_(id, absl::DeadlineExceededError("no frame came through"));
  }

  Loop& loop_;
  const std::string host_;
  std::unique_ptr<LoopbackTransport> network_;
  std::function<void(EndpointId, absl::Status)> on_down_;
  uint32_t deaf_ = kDeaf;
};

class ExpertLinksTest : public testing::Test {
 protected:
  void Start(const std::string& attention_host, const std::string& expert_host,
             bool shared_memory_opens = true) {
    theirs_ = std::make_unique<TwoKinds>(*loop_, hub_, "expert", expert_host);
    theirs_->shared_memory_opens = shared_memory_opens;
    ours_ = std::make_unique<TwoKinds>(*loop_, hub_, "attention", attention_host);
    ExpertConfig config;
    config.listen = "expert";
    ExpertModel model;
    model.digest = "digest";
    model.numerics_id = "numerics";
    model.shape = kShape;
    server_ = std::make_unique<ExpertServer>(expert_, config, model, std::make_unique<NoExperts>(),
                                             *theirs_);
    ASSERT_TRUE(server_->Start().ok());

    DispatcherOptions options{.shape = kShape};
    options.on_peer_lost = [this](MemberId member, const absl::Status&) {
      links_->PeerLost(member);
    };
    dispatcher_ =
        std::make_unique<Dispatcher>(*loop_, *ours_, attention_.incarnation, std::move(options));
    internal::v1::PairHello hello;
    hello.set_incarnation(attention_.incarnation.value);
    hello.set_name("attention");
    hello.set_protocol(1);
    hello.set_model_digest("digest");
    hello.set_numerics_id("numerics");
    const TransportOffer offer = ours_->offer();
    hello.mutable_offer()->mutable_kinds()->Assign(offer.kinds.begin(), offer.kinds.end());
    hello.mutable_offer()->set_host(offer.host);
    links_ = std::make_unique<ExpertLinks>(attention_, *dispatcher_, *ours_, hello);
    auto table = std::make_shared<ClusterTable>();
    Member member;
    member.id = kExpert;
    member.incarnation = expert_.incarnation;
    member.role = Role::kExpert;
    member.control_address = server_->address();
    member.state = MemberState::kActive;
    table->members.push_back(member);
    links_->UpdateTable(table);
  }
  ~ExpertLinksTest() override {
    for (NodeId node : {kAttentionNode, kExpertNode}) network_.Kill(node);
    loop_->Kill(kTimerNode);
    links_.reset();
    dispatcher_.reset();
    server_.reset();
  }

  std::unique_ptr<Loop> loop_ = Loop::Simulated(1);
  LocalNetwork network_{*loop_};
  LoopbackHub hub_{*loop_, kHubNode};
  prometheus::Registry registry_;
  FaultPoints faults_;
  ServiceContext expert_{*loop_,        kExpertNode,     network_, registry_, faults_,
                         Role::kExpert, Incarnation{60}, "expert", Logger()};
  ServiceContext attention_{*loop_,           kAttentionNode,  network_,    registry_, faults_,
                            Role::kAttention, Incarnation{50}, "attention", Logger()};
  std::unique_ptr<TwoKinds> theirs_, ours_;
  std::unique_ptr<ExpertServer> server_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<ExpertLinks> links_;
};

using Kinds = std::vector<std::string>;

TEST_F(ExpertLinksTest, SharedMemoryThatCarriesNothingGivesWayToTheNetwork) {
  Start("one host", "one host");
  loop_->RunUntil(Time(2s));
  EXPECT_FALSE(links_->connected(kExpert));
  loop_->RunUntil(Time(10s));
  EXPECT_TRUE(links_->connected(kExpert));
  EXPECT_EQ(ours_->opened, (Kinds{"shm", "tcp"}));
  EXPECT_EQ(theirs_->opened, (Kinds{"shm", "tcp"}));
}

TEST_F(ExpertLinksTest, HostsThatDifferUseTheNetworkAtOnce) {
  Start("one host", "another");
  loop_->RunUntil(Time(1s));
  EXPECT_TRUE(links_->connected(kExpert));
  EXPECT_EQ(ours_->opened, (Kinds{"tcp"}));
}

TEST_F(ExpertLinksTest, WithoutRoomForSharedMemoryTheNetworkIsUsedAtOnce) {
  Start("one host", "one host", /*shared_memory_opens=*/false);
  loop_->RunUntil(Time(1s));
  EXPECT_TRUE(links_->connected(kExpert));
  EXPECT_EQ(theirs_->opened, (Kinds{"shm", "tcp"}));
  EXPECT_EQ(ours_->opened, (Kinds{"tcp"}));
}

}  // namespace
}  // namespace bottega
