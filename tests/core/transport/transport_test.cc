// The contract of core/transport/transport.h, one body for every transport.
#include "core/transport/transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/base/limits.h"
#include "core/transport/faulty_transport.h"
#include "core/transport/loopback_transport.h"
#include "core/transport/ucx_transport.h"
#include "tests/core/transport/join.h"
#include "tests/core/transport/transport_world.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
constexpr NodeId kTestNode{7};
constexpr size_t kPool = size_t{64} << 20;

class LoopbackWorld : public TransportWorld {
 public:
  explicit LoopbackWorld(bool simulated)
      : loop_(simulated ? Loop::Simulated(3) : Loop::Real()), hub_(*loop_, NodeId{99}) {}
  Loop& loop() override { return *loop_; }
  std::unique_ptr<Transport> Open(size_t pool_bytes) override {
    return hub_.Open("end-" + std::to_string(++opened_), pool_bytes);
  }

 private:
  std::unique_ptr<Loop> loop_;
  LoopbackHub hub_;
  int opened_ = 0;
};

class UcxWorld : public TransportWorld {
 public:
  explicit UcxWorld(std::string exchange) : exchange_(std::move(exchange)) {}
  Loop& loop() override { return *loop_; }
  std::unique_ptr<Transport> Open(size_t pool_bytes) override {
    auto transport = UcxTransport::Create(
        *loop_, {.exchange = exchange_, .pool_bytes = pool_bytes, .connect_timeout = 2s});
    EXPECT_TRUE(transport.ok()) << transport.status();
    return *std::move(transport);
  }

 private:
  const std::string exchange_;
  std::unique_ptr<Loop> loop_ = Loop::Real();
};

// No fault point is armed: nothing may differ.
class FaultlessWorld : public LoopbackWorld {
 public:
  FaultlessWorld() : LoopbackWorld(false) {}
  std::unique_ptr<Transport> Open(size_t pool_bytes) override {
    return std::make_unique<FaultyTransport>(loop(), kTestNode, faults_,
                                             LoopbackWorld::Open(pool_bytes));
  }

 private:
  FaultPoints faults_;
};

const TransportKind kKinds[] = {
    {"UcxTcp", [] { return std::make_unique<UcxWorld>("tcp"); }},
    {"UcxShm", [] { return std::make_unique<UcxWorld>("shm"); }, false},
    {"Faulty", [] { return std::make_unique<FaultlessWorld>(); }},
    {"LoopbackReal", [] { return std::make_unique<LoopbackWorld>(false); }},
    {"LoopbackSimulated", [] { return std::make_unique<LoopbackWorld>(true); }},
};

// One end with what it has received.
struct End {
  std::unique_ptr<Transport> transport;
  std::vector<FrameBuffer> frames;
  std::vector<EndpointId> ups;
  std::vector<std::pair<EndpointId, absl::Status>> downs;
};

Task<void> Watch(Loop& loop, const std::function<bool()>* done, Time give_up) {
  while (!(*done)() && loop.Now() < give_up) co_await loop.Sleep(200us);
  loop.Stop();
}

class TransportTest : public testing::TestWithParam<TransportKind> {
 protected:
  TransportTest() : world_(GetParam().make()) {}

  std::unique_ptr<End> Open(size_t pool_bytes = kPool) {
    auto end = std::make_unique<End>();
    end->transport = world_->Open(pool_bytes);
    End* self = end.get();
    Transport::Events events;
    events.on_frame = [self](FrameBuffer frame) { self->frames.push_back(std::move(frame)); };
    events.on_up = [self](EndpointId id) { self->ups.push_back(id); };
    events.on_down = [self](EndpointId id, absl::Status why) { self->downs.emplace_back(id, why); };
    end->transport->SetEvents(std::move(events));
    return end;
  }

  // Runs the loop until `done`; false if that does not come.
  bool RunUntil(std::function<bool()> done) {
    world_->loop().Spawn(kTestNode, Watch(world_->loop(), &done, world_->loop().Now() + 10s));
    world_->loop().Run();
    return done();
  }

  // The end at `a` of a new connection.
  static EndpointId Connect(End& a, End& b) {
    const auto joined = Join(*a.transport, *b.transport);
    EXPECT_TRUE(joined.ok()) << joined.status();
    return joined.ok() ? joined->first : EndpointId{};
  }

  static FrameBuffer Fill(Transport& transport, size_t size, uint8_t seed) {
    absl::StatusOr<FrameBuffer> frame = transport.Lease(size);
    EXPECT_TRUE(frame.ok()) << frame.status();
    for (size_t i = 0; i < size; ++i) frame->data()[i] = std::byte(i * 31 + i / 256 + seed);
    return *std::move(frame);
  }

  static bool Holds(const FrameBuffer& frame, size_t size, uint8_t seed) {
    if (frame.size() != size) return false;
    for (size_t i = 0; i < size; ++i) {
      if (frame.data()[i] != std::byte(i * 31 + i / 256 + seed)) return false;
    }
    return true;
  }

  std::unique_ptr<TransportWorld> world_;
};
INSTANTIATE_TEST_SUITE_P(All, TransportTest, testing::ValuesIn(kKinds),
                         [](const auto& info) { return info.param.name; });

TEST_P(TransportTest, CarriesBytesOfEverySizeInOrder) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  const size_t sizes[] = {0,          1,          63,   64,   65,   127,   128,
                          4095,       4096,       4097, 8256, 8257, 65536, (256u << 10) - 1,
                          256u << 10, 512u << 10, 3};
  uint8_t seed = 0;
  for (size_t size : sizes) {
    FrameBuffer frame = Fill(*a->transport, size, seed++);
    ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
  }
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == std::size(sizes); }));
  for (size_t i = 0; i < std::size(sizes); ++i) {
    EXPECT_TRUE(Holds(b->frames[i], sizes[i], static_cast<uint8_t>(i))) << i;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(b->frames[i].data()) % 64, 0u) << i;
  }
}

TEST_P(TransportTest, BothDirectionsAndManyPeers) {
  auto hub = Open();
  std::vector<std::unique_ptr<End>> spokes;
  for (int i = 0; i < 4; ++i) spokes.push_back(Open());
  for (int i = 0; i < 4; ++i) {
    const auto joined = Join(*hub->transport, *spokes[i]->transport);
    ASSERT_TRUE(joined.ok()) << joined.status();
    const auto [out, back] = *joined;
    for (int n = 0; n < 5; ++n) {
      FrameBuffer there = Fill(*hub->transport, 100 + i, static_cast<uint8_t>(n));
      ASSERT_TRUE(hub->transport->Post(out, std::move(there)).ok());
      FrameBuffer here = Fill(*spokes[i]->transport, 200 + i, static_cast<uint8_t>(n));
      ASSERT_TRUE(spokes[i]->transport->Post(back, std::move(here)).ok());
    }
  }
  ASSERT_TRUE(RunUntil([&] {
    for (const auto& spoke : spokes) {
      if (spoke->frames.size() != 5) return false;
    }
    return hub->frames.size() == 20;
  }));
  for (int i = 0; i < 4; ++i) {
    for (int n = 0; n < 5; ++n) {
      EXPECT_TRUE(Holds(spokes[i]->frames[n], 100 + i, static_cast<uint8_t>(n)));
    }
  }
}

TEST_P(TransportTest, NoCallbackRunsInsidePost) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  for (int i = 0; i < 100; ++i) {
    FrameBuffer frame = Fill(*a->transport, 64, 1);
    ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
    ASSERT_TRUE(b->frames.empty());
  }
  EXPECT_TRUE(RunUntil([&] { return b->frames.size() == 100; }));
}

TEST_P(TransportTest, RefusesFramesPastTheLimit) {
  auto a = Open();
  EXPECT_EQ(a->transport->Lease(limits::kFrameBytesMax + 1).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(TransportTest, EmptyPoolIsAStatusAndRecovers) {
  auto a = Open(size_t{1} << 20), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  std::vector<FrameBuffer> held;
  absl::Status full;
  for (int i = 0; i < 64 && full.ok(); ++i) {
    auto frame = a->transport->Lease(128u << 10);
    if (frame.ok()) held.push_back(*std::move(frame));
    full = frame.status();
  }
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_GE(held.size(), 2u);
  held.pop_back();
  EXPECT_TRUE(a->transport->Lease(100).ok());
  // A posted frame's memory comes back once the transport and the receiver are done with it.
  for (FrameBuffer& frame : held) {
    ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
  }
  const size_t sent = held.size();
  held.clear();
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == sent; }));
  b->frames.clear();
  ASSERT_TRUE(RunUntil([&] { return a->transport->Lease(128u << 10).ok(); }));
}

TEST_P(TransportTest, TruncateShortensTheFrame) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  FrameBuffer frame = Fill(*a->transport, 1000, 9);
  frame.Truncate(130);
  ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == 1; }));
  EXPECT_TRUE(Holds(b->frames[0], 130, 9));
}

TEST_P(TransportTest, DeathOfThePeerIsOneEventAndEndsThePosts) {
  if (!GetParam().tells_death) GTEST_SKIP() << "shared memory: see ucx_faults_test";
  auto a = Open(), b = Open(), c = Open();
  const EndpointId to_b = Connect(*a, *b), to_c = Connect(*a, *c);
  FrameBuffer first = Fill(*a->transport, 100, 1);
  ASSERT_TRUE(a->transport->Post(to_b, std::move(first)).ok());
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == 1; }));
  b->transport.reset();
  ASSERT_TRUE(RunUntil([&] {
    // Traffic, as the exchange has: some networks show a death only to those who talk.
    if (auto frame = a->transport->Lease(64); frame.ok()) {
      (void)a->transport->Post(to_b, *std::move(frame));
    }
    return !a->downs.empty();
  }));
  EXPECT_EQ(a->downs[0].first, to_b);
  EXPECT_FALSE(a->downs[0].second.ok());
  FrameBuffer late = Fill(*a->transport, 64, 1);
  EXPECT_FALSE(a->transport->Post(to_b, std::move(late)).ok());
  // Others do not notice, and there is no second event.
  FrameBuffer other = Fill(*a->transport, 300, 5);
  ASSERT_TRUE(a->transport->Post(to_c, std::move(other)).ok());
  ASSERT_TRUE(RunUntil([&] { return c->frames.size() == 1; }));
  EXPECT_TRUE(Holds(c->frames[0], 300, 5));
  EXPECT_EQ(a->downs.size(), 1u);
}

TEST_P(TransportTest, D6_AFrameOutlivesItsSender) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  FrameBuffer frame = Fill(*a->transport, 5000, 4);
  ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == 1; }));
  a->transport.reset();
  EXPECT_TRUE(Holds(b->frames[0], 5000, 4));
  b->frames.clear();
}

TEST_P(TransportTest, CloseIsSilent) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  a->transport->Close(to_b);
  a->transport->Close(to_b);
  a->transport->Close(EndpointId{12345});
  FrameBuffer frame = Fill(*a->transport, 64, 1);
  EXPECT_FALSE(a->transport->Post(to_b, std::move(frame)).ok());
  const Time end = world_->loop().Now() + 20ms;
  RunUntil([&] { return world_->loop().Now() >= end; });
  EXPECT_TRUE(a->downs.empty());
}

TEST_P(TransportTest, IsUpAtBothEndsOnceBothAreConnected) {
  auto a = Open(), b = Open(), c = Open();
  const std::string kind = a->transport->offer().kinds.front();
  const auto at_a = a->transport->Open(kind);
  const auto at_b = b->transport->Open(kind);
  ASSERT_TRUE(at_a.ok() && at_b.ok());
  FrameBuffer early = Fill(*a->transport, 64, 1);
  EXPECT_FALSE(a->transport->Post(*at_a, std::move(early)).ok());
  ASSERT_TRUE(a->transport->Connect(*at_a, b->transport->address(*at_b)).ok());
  const EndpointId c_to_b = Connect(*c, *b);  // another pair, meanwhile
  ASSERT_TRUE(RunUntil([&] { return c->ups.size() == 1 && b->ups.size() == 1; }));
  EXPECT_EQ(c->ups[0], c_to_b);
  EXPECT_TRUE(a->ups.empty());
  ASSERT_TRUE(b->transport->Connect(*at_b, a->transport->address(*at_a)).ok());
  ASSERT_TRUE(RunUntil([&] { return a->ups.size() == 1 && b->ups.size() == 2; }));
  EXPECT_EQ(a->ups[0], *at_a);
  EXPECT_EQ(b->ups[1], *at_b);
}

TEST_P(TransportTest, CountsEndpointsAndBytes) {
  auto a = Open(), b = Open();
  const EndpointId to_b = Connect(*a, *b);
  const auto of = [&](End& end) { return end.transport->stats().front(); };
  EXPECT_EQ(of(*a).connecting, 1u);
  FrameBuffer frame = Fill(*a->transport, 1000, 2);
  ASSERT_TRUE(a->transport->Post(to_b, std::move(frame)).ok());
  ASSERT_TRUE(RunUntil([&] { return b->frames.size() == 1 && of(*a).up == 1; }));
  EXPECT_EQ(of(*a).kind, a->transport->offer().kinds.front());
  EXPECT_EQ(of(*a).connecting, 0u);
  EXPECT_EQ(of(*a).bytes_sent, 1000u);
  EXPECT_EQ(of(*b).bytes_received, 1000u);
  a->transport->Close(to_b);
  EXPECT_EQ(of(*a).up, 0u);
  EXPECT_EQ(of(*a).bytes_sent, 1000u);  // counters never fall
}

TEST_P(TransportTest, OpensNoKindThatItDoesNotOffer) {
  auto a = Open();
  EXPECT_EQ(a->transport->Open("carrier pigeon").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(TransportTest, NobodyThereIsAnErrorOrAnEvent) {
  auto a = Open();
  std::string address;
  {
    auto gone = Open();
    const auto endpoint = gone->transport->Open(gone->transport->offer().kinds.front());
    ASSERT_TRUE(endpoint.ok());
    address = gone->transport->address(*endpoint);
  }
  const auto endpoint = a->transport->Open(a->transport->offer().kinds.front());
  ASSERT_TRUE(endpoint.ok());
  if (!a->transport->Connect(*endpoint, address).ok()) return;
  ASSERT_TRUE(RunUntil([&] { return a->downs.size() == 1; }));
  EXPECT_EQ(a->downs[0].first, *endpoint);
}

TEST_P(TransportTest, AddressesThatAreNotOursAreRefused) {
  auto a = Open();
  for (const std::string& address : {std::string(), std::string("nobody"), std::string(200, '\xff'),
                                     std::string("nobody/1"), std::string("bottega-ucx:short")}) {
    const auto endpoint = a->transport->Open(a->transport->offer().kinds.front());
    ASSERT_TRUE(endpoint.ok());
    EXPECT_FALSE(a->transport->Connect(*endpoint, address).ok());
    a->transport->Close(*endpoint);
  }
}

// What only the loopback does: the fabric's faults.
class LoopbackFaultsTest : public testing::Test {
 protected:
  LoopbackFaultsTest() : loop_(Loop::Simulated(5)), hub_(*loop_, NodeId{99}) {
    a_ = hub_.Open("a");
    b_ = hub_.Open("b");
    Transport::Events events;
    events.on_frame = [this](FrameBuffer frame) {
      got_.emplace_back(reinterpret_cast<const char*>(frame.data()), frame.size());
      at_.push_back(loop_->Now().time_since_epoch());
    };
    b_->SetEvents(std::move(events));
    Transport::Events downs;
    downs.on_frame = [](FrameBuffer) {};
    downs.on_down = [this](EndpointId, absl::Status) { ++downs_; };
    a_->SetEvents(std::move(downs));
    to_b_ = Join(*a_, *b_)->first;
  }

  absl::Status Send(const std::string& text) {
    FrameBuffer frame = *a_->Lease(text.size());
    std::memcpy(frame.data(), text.data(), text.size());
    return a_->Post(to_b_, std::move(frame));
  }

  std::unique_ptr<Loop> loop_;
  LoopbackHub hub_;
  std::unique_ptr<LoopbackTransport> a_, b_;
  EndpointId to_b_;
  std::vector<std::string> got_;
  std::vector<Duration> at_;
  int downs_ = 0;
};

TEST_F(LoopbackFaultsTest, DelaysDropsDuplicatesAndCorrupts) {
  std::vector<FrameFate> fates = {{.delay = 5ms}, {.drop = true}, {.copies = 2}, {.corrupt = 1}};
  size_t next = 0;
  hub_.SetFaults([&](const std::string& from, const std::string& to, auto) {
    EXPECT_EQ(from + to, "ab");
    return fates[next++];
  });
  for (const char* text : {"late", "lost", "twin", "bent"}) ASSERT_TRUE(Send(text).ok());
  loop_->Run();
  ASSERT_EQ(got_.size(), 4u);
  EXPECT_THAT(got_, testing::UnorderedElementsAre("late", "twin", "twin", "b%nt"));
  EXPECT_EQ(got_.back(), "late");
  EXPECT_EQ(at_.back(), 5ms);
  EXPECT_EQ(a_->leased(), 0u);
}

TEST_F(LoopbackFaultsTest, ABrokenEndpointLosesWhatIsUnderWay) {
  int n = 0;
  hub_.SetFaults([&](const std::string&, const std::string&, auto) {
    return ++n == 3 ? FrameFate{.take_down = true} : FrameFate{.delay = 1ms};
  });
  for (const char* text : {"one", "two", "three"}) ASSERT_TRUE(Send(text).ok());
  EXPECT_FALSE(Send("four").ok());
  loop_->Run();
  EXPECT_TRUE(got_.empty());
  EXPECT_EQ(downs_, 1);
  EXPECT_EQ(a_->leased(), 0u);
}

TEST_F(LoopbackFaultsTest, FramesOfADeadSenderStillArrive) {
  hub_.SetFaults(
      [&](const std::string&, const std::string&, auto) { return FrameFate{.delay = 3ms}; });
  ASSERT_TRUE(Send("from the grave").ok());
  a_.reset();
  a_ = hub_.Open("a");  // the next incarnation, at the same address
  loop_->Run();
  EXPECT_THAT(got_, testing::ElementsAre("from the grave"));
}

TEST_F(LoopbackFaultsTest, AnEndpointDoesNotReachTheNextTransportAtTheAddress) {
  hub_.set_down_delay(2ms);
  b_.reset();
  b_ = hub_.Open("b");
  Transport::Events events;
  events.on_frame = [](FrameBuffer) { ADD_FAILURE() << "meant for somebody else"; };
  b_->SetEvents(std::move(events));
  ASSERT_TRUE(Send("hello?").ok());  // the death has not been seen yet
  loop_->Run();
  EXPECT_EQ(downs_, 1);
}

}  // namespace
}  // namespace bottega
