// The expert worker's data path against an attention worker in the hands of the test.
#include "expert-worker/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <cstring>

#include "core/exchange/share.h"
#include "core/service/local_network.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/metrics.h"
#include "tests/core/exchange/pure_expert.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;

constexpr NodeId kExpertNode{1}, kHubNode{2};
constexpr Incarnation kAttention{50}, kSelf{60};
constexpr ExchangeShape kShape{
    .layers = 3, .experts = 8, .top_k = 2, .hidden = 16, .row_type = DType::kF32};

// The value of bottega_exchange_dropped_frames_total{reason}.
double Dropped(const prometheus::Registry& registry, const std::string& reason) {
  for (const prometheus::MetricFamily& family : registry.Collect()) {
    if (family.name != "bottega_exchange_dropped_frames_total") continue;
    for (const prometheus::ClientMetric& metric : family.metric) {
      for (const auto& label : metric.label) {
        if (label.name == "reason" && label.value == reason) return metric.counter.value;
      }
    }
  }
  return -1;
}

// Remembers what it was asked, a line per call: "layer: expert x rows ...".
class RecordingExperts : public ExpertCompute {
 public:
  absl::Status Load(LayerId, ExpertId) override { return absl::OkStatus(); }
  void Unload(LayerId layer, ExpertId expert) override {
    calls.push_back("unload " + std::to_string(layer.value) + "." + std::to_string(expert.value));
  }
  void Run(LayerId layer, absl::Span<const ExpertRows> rows) override {
    std::string call = std::to_string(layer.value) + ":";
    for (const ExpertRows& group : rows) {
      call += " " + std::to_string(group.expert.value) + "x" + std::to_string(group.in.size());
      for (size_t i = 0; i < group.in.size(); ++i) {
        PureExpert(kShape, layer, group.expert, group.in[i], group.out[i]);
      }
    }
    calls.push_back(call);
  }
  Duration VirtualTime(size_t rows) const override { return row_time * rows; }

  std::vector<std::string> calls;
  Duration row_time{};
};

class ExpertEngineTest : public testing::Test {
 protected:
  ExpertEngineTest()
      : loop_(Loop::Simulated(1)),
        network_(*loop_),
        hub_(*loop_, kHubNode),
        context_{*loop_,    kExpertNode, network_,
                 registry_, faults_,     Role::kExpert,
                 kSelf,     "expert",    Logger("expert", "expert")},
        mine_(hub_.Open("expert")),
        theirs_(hub_.Open("attention")) {
    Transport::Events events;
    events.on_frame = [this](FrameBuffer frame) {
      const auto view = CheckFrame(frame.bytes(), kShape, kAttention,
                                   [](Incarnation sender, uint64_t) { return sender == kSelf; });
      ASSERT_TRUE(view.ok()) << view.status();
      headers_.push_back(view->header);
      frames_.push_back(std::move(frame));
      when_.push_back(loop_->Now().time_since_epoch());
    };
    theirs_->SetEvents(std::move(events));
  }
  ~ExpertEngineTest() override { loop_->Kill(kExpertNode); }

  void Start(ExpertEngineOptions options = {.shape = kShape}) {
    engine_ = std::make_unique<ExpertEngine>(context_, *mine_, compute_, options);
    for (uint16_t layer = 0; layer < 3; ++layer) {
      for (uint16_t e = 0; e < 7; ++e) engine_->Hold(LayerId{layer}, ExpertId{e});  // 7 is not held
    }
    loop_->Spawn(kExpertNode, engine_->Run());
    JoinPair();
  }

  void JoinPair() {
    pair_ = *engine_->AddPair(kAttention, "attention", {"loopback"});
    to_expert_ = *theirs_->Open("loopback");
    ASSERT_TRUE(theirs_->Connect(to_expert_, mine_->address(pair_->endpoint)).ok());
    ASSERT_TRUE(engine_->ConnectPair(*pair_, theirs_->address(to_expert_)).ok());
  }

  struct Ask {
    uint16_t layer = 0;
    std::vector<uint16_t> experts = {1, 3};  // two a token
    FramePhase phase = FramePhase::kDecode;
    uint32_t remaining_us = 0;
  };
  FrameHeader Header(const Ask& ask) {
    FrameHeader header{};
    header.kind = static_cast<uint8_t>(FrameKind::kForward);
    header.row_type = static_cast<uint8_t>(kShape.row_type);
    header.sender = kAttention.value;
    header.receiver = kSelf.value;
    header.session_key = pair_->session_key;
    header.sequence = ++sequence_;
    header.layer = ask.layer;
    header.parts = header.attempt = 1;
    header.phase = static_cast<uint8_t>(ask.phase);
    header.entries = static_cast<uint32_t>(ask.experts.size());
    header.tokens = header.entries / 2;
    header.hidden = kShape.hidden;
    header.remaining_us = ask.remaining_us;
    return header;
  }
  FrameBuffer Frame(const Ask& ask, const std::function<void(FrameHeader&)>& edit = {}) {
    FrameHeader header = Header(ask);
    if (edit) edit(header);
    rows_.resize(header.tokens * kShape.row_bytes());
    for (size_t i = 0; i < rows_.size(); ++i) rows_[i] = std::byte(i * 7 + header.sequence);
    const DispatchRequest request{.rows = rows_.data(), .experts = ask.experts.data()};
    std::vector<uint32_t> entries;
    for (uint32_t e = 0; e < header.entries; ++e) entries.push_back(e);
    FrameBuffer frame =
        *theirs_->Lease(ForwardBytes(header.tokens, header.entries, kShape.row_bytes()));
    WriteForward({request, kShape.top_k}, entries, kShape, header, {frame.data(), frame.size()});
    return frame;
  }
  void Send(FrameBuffer frame) { ASSERT_TRUE(theirs_->Post(to_expert_, std::move(frame)).ok()); }
  uint64_t Send(const Ask& ask) {
    Send(Frame(ask));
    return sequence_;
  }
  void RunOneByOne(int times) {
    for (int i = 0; i < times; ++i) {
      Send(Ask{});
      loop_->RunUntil(loop_->Now() + 3s);
    }
  }
  std::vector<std::string> Answers() const {
    std::vector<std::string> answers;
    for (const FrameHeader& header : headers_) {
      const FrameKind kind{header.kind};
      answers.push_back(
          std::to_string(header.sequence) + " " +
          (kind == FrameKind::kReply ? "reply" : std::string(Name(FrameReason{header.reason}))));
    }
    return answers;
  }

  std::unique_ptr<Loop> loop_;
  LocalNetwork network_;
  LoopbackHub hub_;
  prometheus::Registry registry_;
  FaultPoints faults_;
  ServiceContext context_;
  RecordingExperts compute_;
  std::unique_ptr<LoopbackTransport> mine_, theirs_;
  std::unique_ptr<ExpertEngine> engine_;
  std::shared_ptr<Pair> pair_;
  EndpointId to_expert_;
  uint64_t sequence_ = 0;
  std::vector<std::byte> rows_;
  std::vector<FrameHeader> headers_;
  std::vector<FrameBuffer> frames_;
  std::vector<Duration> when_;
};

TEST_F(ExpertEngineTest, AReplyHasEveryEntryInTheOrderOfItsForward) {
  Start();
  Send({.experts = {1, 3, 0, 3, 2, 5}});
  const std::vector<std::byte> rows = rows_;
  loop_->RunUntil(Time(1ms));
  ASSERT_THAT(Answers(), ElementsAre("1 reply"));
  EXPECT_THAT(compute_.calls, ElementsAre("0: 0x1 1x1 2x1 3x2 5x1"));
  const uint16_t experts[] = {1, 3, 0, 3, 2, 5};
  std::vector<std::byte> expected(kShape.row_bytes());
  for (size_t i = 0; i < 6; ++i) {
    PureExpert(kShape, LayerId{0}, ExpertId{experts[i]}, rows.data() + i / 2 * kShape.row_bytes(),
               expected.data());
    EXPECT_EQ(std::memcmp(frames_[0].data() + sizeof(FrameHeader) + i * expected.size(),
                          expected.data(), expected.size()),
              0)
        << i;
  }
  EXPECT_TRUE(engine_->idle());
  EXPECT_EQ(engine_->stats().rows_decode, 6u);
  EXPECT_EQ(engine_->expert_rows()[3], 2u);
  EXPECT_EQ(engine_->expert_rows()[4], 0u);
}

TEST_F(ExpertEngineTest, WhatWaitsForALayerIsMerged) {
  Start();
  Send({.layer = 1, .experts = {1, 3}});
  Send({.layer = 2, .experts = {1, 2}});
  Send({.layer = 1, .experts = {0, 3}});
  loop_->RunUntil(Time(1ms));
  EXPECT_THAT(compute_.calls, ElementsAre("1: 0x1 1x1 3x2", "2: 1x1 2x1"));
  EXPECT_EQ(headers_.size(), 3u);
}

TEST_F(ExpertEngineTest, DecodeGoesBeforeAndBetweenPrefill) {
  compute_.row_time = 1ms;
  Start({.shape = kShape, .item_time = 2ms});
  std::vector<uint16_t> many;
  for (int t = 0; t < 40; ++t) many.insert(many.end(), {1, 3});
  Send({.layer = 0, .experts = many, .phase = FramePhase::kPrefill});
  Send({.layer = 1, .experts = {2, 4}});
  loop_->RunUntil(Time(20ms));
  ASSERT_THAT(Answers(), ElementsAre("2 reply"));
  Send({.layer = 2, .experts = {2, 4}});
  loop_->RunUntil(Time(200ms));
  ASSERT_THAT(Answers(), ElementsAre("2 reply", "3 reply", "1 reply"));
  EXPECT_LT(when_[1], 45ms);  // the worker has learnt that rows are slow: it waited for an item
  EXPECT_GT(when_[2], 80ms);
}

TEST_F(ExpertEngineTest, RefusalsSayWhy) {
  Start({.shape = kShape, .credits = 4});
  Send({.experts = {1, 7}});
  Send({.experts = {1, 3}});
  Send({.experts = {1, 3, 1, 3}});  // past the credits: 2 are here
  loop_->RunUntil(Time(1ms));
  EXPECT_THAT(Answers(), testing::UnorderedElementsAre("1 not_held", "2 reply", "3 busy"));
  EXPECT_EQ(engine_->stats().nacks_not_held, 1u);
  EXPECT_EQ(engine_->stats().nacks_busy, 1u);
}

TEST_F(ExpertEngineTest, ANackCarriesTheWorkersEpoch) {
  Start();
  engine_->set_epoch(99);
  Send({.experts = {1, 7}});
  loop_->RunUntil(Time(1ms));
  ASSERT_EQ(headers_.size(), 1u);
  EXPECT_EQ(headers_[0].epoch, 99u);
}

TEST_F(ExpertEngineTest, ChangedBytesAreRefused) {
  Start();
  FrameBuffer frame = Frame({});
  frame.data()[frame.size() - 1] ^= std::byte{1};
  Send(std::move(frame));
  loop_->RunUntil(Time(1ms));
  EXPECT_THAT(Answers(), ElementsAre("1 corrupt"));
  EXPECT_TRUE(compute_.calls.empty());
}

TEST_F(ExpertEngineTest, StrangersGetNoAnswer) {
  Start();
  Send(Frame({}, [](FrameHeader& h) { h.session_key ^= 1; }));
  Send(Frame({}, [](FrameHeader& h) { h.sender ^= 1; }));
  Send(Frame({}, [](FrameHeader& h) { h.receiver ^= 1; }));
  Send(Frame({}, [](FrameHeader& h) { h.layer = 77; }));
  FrameBuffer noise = *theirs_->Lease(300);
  std::memset(noise.data(), 0x5a, noise.size());
  Send(std::move(noise));
  loop_->RunUntil(Time(1ms));
  EXPECT_TRUE(headers_.empty());
  EXPECT_TRUE(compute_.calls.empty());
  EXPECT_EQ(engine_->stats().dropped_stranger, 3u);
  EXPECT_EQ(engine_->stats().dropped_incarnation, 1u);
  EXPECT_EQ(engine_->stats().dropped_malformed, 1u);
}

TEST_F(ExpertEngineTest, AProbeLearnsWhetherAFrameIsHere) {
  compute_.row_time = 1ms;
  Start();
  const Ask ask;
  const uint64_t here = Send(ask);
  loop_->RunUntil(Time(100us));  // in work
  auto probe = [&](uint64_t sequence) {
    FrameHeader header = Header(ask);
    header.kind = static_cast<uint8_t>(FrameKind::kProbe);
    header.sequence = sequence;
    FrameBuffer frame = *theirs_->Lease(sizeof header);
    SealFrame(header, {frame.data(), frame.size()});
    Send(std::move(frame));
  };
  probe(here);
  probe(here + 100);
  loop_->RunUntil(Time(20ms));
  EXPECT_THAT(Answers(), ElementsAre("1 queued", "101 not_queued", "1 reply"));
}

TEST_F(ExpertEngineTest, ADuplicateInTheQueueIsComputedOnce) {
  Start();
  const Ask ask;
  FrameBuffer first = Frame(ask);
  FrameBuffer second = *theirs_->Lease(first.size());
  std::memcpy(second.data(), first.data(), first.size());
  Send(std::move(first));
  Send(std::move(second));
  loop_->RunUntil(Time(1ms));
  EXPECT_THAT(Answers(), ElementsAre("1 reply"));
  EXPECT_EQ(engine_->stats().dropped_duplicate, 1u);
  ExpertMetrics metrics(registry_, kShape, false);
  metrics.Update(*engine_, 0);
  EXPECT_EQ(Dropped(registry_, "duplicate"), 1);
}

TEST_F(ExpertEngineTest, WhatIsTooLateIsNotComputed) {
  compute_.row_time = 5ms;
  Start();
  Send({.layer = 0, .experts = {1, 2}});
  Send({.layer = 1, .experts = {1, 2}, .remaining_us = 3000});
  loop_->RunUntil(Time(100ms));
  EXPECT_THAT(Answers(), ElementsAre("1 reply", "2 expired"));
  EXPECT_EQ(compute_.calls.size(), 1u);
}

TEST_F(ExpertEngineTest, WorkOfAPairThatEndedIsDropped) {
  compute_.row_time = 5ms;
  Start();
  Send({.layer = 0, .experts = {1, 2}});
  Send({.layer = 1, .experts = {1, 2}});
  loop_->RunUntil(Time(1ms));
  engine_->RemovePair(pair_);
  loop_->RunUntil(Time(100ms));
  EXPECT_TRUE(headers_.empty());
  EXPECT_EQ(compute_.calls.size(), 1u);
  EXPECT_TRUE(engine_->idle());
  EXPECT_EQ(engine_->pairs(), 0u);
  EXPECT_EQ(mine_->leased(), 0u);
}

TEST_F(ExpertEngineTest, ALostEndpointEndsThePair) {
  Start();
  theirs_.reset();
  loop_->RunUntil(Time(1ms));
  EXPECT_EQ(engine_->pairs(), 0u);
  EXPECT_TRUE(pair_->gone);
}

TEST_F(ExpertEngineTest, ARetiredExpertIsUnloadedAfterTheWorkThatUsesIt) {
  compute_.row_time = 5ms;
  Start({.shape = kShape, .item_time = 5ms});
  Send({.layer = 0, .experts = {1, 2}});
  loop_->RunUntil(Time(1ms));  // the first row is in work
  engine_->Retire(LayerId{0}, ExpertId{2});
  loop_->RunUntil(Time(2ms));
  Send({.layer = 0, .experts = {1, 2}});
  loop_->RunUntil(Time(100ms));
  EXPECT_THAT(Answers(), testing::UnorderedElementsAre("1 reply", "2 not_held"));
  EXPECT_EQ(compute_.calls.back(), "unload 0.2");
}

TEST_F(ExpertEngineTest, TheCostModelFollowsTheWork) {
  compute_.row_time = 1ms;
  Start();
  RunOneByOne(60);
  EXPECT_NEAR(engine_->CostFor(Pair{}).row_us, 1000, 50);
}

// W5: who asks waits for three times the predicted time before it hedges.
TEST_F(ExpertEngineTest, AStopOfASecondIsNotTakenForTheCostOfItsRows) {
  compute_.row_time = 1ms;
  Start();
  RunOneByOne(80);
  compute_.row_time = 1s;
  RunOneByOne(1);
  EXPECT_LT(engine_->CostFor(Pair{}).row_us, 1500);
  compute_.row_time = 10ms;
  RunOneByOne(10);
  EXPECT_GT(engine_->CostFor(Pair{}).row_us, 5000);
}

TEST_F(ExpertEngineTest, WithoutMemoryForRepliesItSaysBusy) {
  mine_.reset();
  mine_ = hub_.Open("expert", 8u << 10);
  Start();
  std::vector<FrameBuffer> held;
  held.push_back(*mine_->Lease(4096));
  std::vector<uint16_t> many;
  for (int t = 0; t < 40; ++t) many.insert(many.end(), {1, 3});  // a reply of 5 KiB
  Send({.experts = many});
  loop_->RunUntil(Time(1ms));
  EXPECT_THAT(Answers(), ElementsAre("1 busy"));
  held.clear();
  frames_.clear();
  Send({.experts = many});
  loop_->RunUntil(Time(10ms));
  EXPECT_EQ(Answers().back(), "2 reply");
}

}  // namespace
}  // namespace bottega
