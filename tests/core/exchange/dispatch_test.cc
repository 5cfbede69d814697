// The attention side of the exchange against workers that do as the test says, on a simulated loop.
#include "core/exchange/dispatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "core/exchange/exchange_reference.h"
#include "core/exchange/share.h"
#include "core/transport/loopback_transport.h"
#include "tests/core/exchange/pure_expert.h"
#include "tests/core/transport/join.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr NodeId kAttentionNode{1}, kWorkerNode{2}, kHubNode{3};
constexpr Incarnation kSelf{1000};
constexpr ExchangeShape kShape{
    .layers = 4, .experts = 8, .top_k = 2, .hidden = 24, .row_type = DType::kBF16};

// A worker in the hands of the test: by default it answers at once.
class ScriptedWorker {
 public:
  ScriptedWorker(Loop& loop, LoopbackHub& hub, const std::string& address, uint64_t incarnation)
      : loop_(loop), incarnation_{incarnation}, transport_(hub.Open(address)) {
    Transport::Events events;
    events.on_frame = [this](FrameBuffer frame) { OnFrame(std::move(frame)); };
    events.on_down = [](EndpointId, absl::Status) {};
    transport_->SetEvents(std::move(events));
  }

  // Joins `attention`, as a pair stream would.
  PeerInfo Pair(Transport& attention, uint32_t credits = limits::kCreditRows) {
    const auto [there, here] = *Join(attention, *transport_);
    back_ = here;
    return {.incarnation = incarnation_,
            .session_key = key(),
            .endpoint = there,
            .transport = "loopback",
            .credits = credits,
            .cost = {.base_us = 10, .row_us = 1}};
  }
  uint64_t key() const { return incarnation_.value * 77; }

  // What it does with a FORWARD; unset: Reply.
  std::function<void(ScriptedWorker&, const FrameView&)> on_forward;
  bool answers_probes = true;

  void OnFrame(FrameBuffer frame) {
    const auto view =
        CheckFrame(frame.bytes(), kShape, incarnation_,
                   [this](Incarnation i, uint64_t k) { return i == kSelf && k == key(); });
    if (!view.ok()) {
      ++refused;
      return;
    }
    if (view->kind() == FrameKind::kProbe && view->reason() == FrameReason::kTrial) {
      const FrameBuffer trial = std::move(trial_);
      return Serve(*CheckFrame(trial.bytes(), kShape, incarnation_,
                               [](Incarnation, uint64_t) { return true; }));
    }
    if (view->kind() == FrameKind::kProbe) {
      ++probes;
      if (answers_probes) Send(AnswerTo(view->header, FrameKind::kAlive, FrameReason::kNotQueued));
      return;
    }
    if (view->reason() == FrameReason::kTrial) {
      Send(AnswerTo(view->header, FrameKind::kAlive, FrameReason::kTrial));
      trial_ = std::move(frame);
      return;
    }
    Serve(*view);
  }
  void Serve(const FrameView& view) {
    forwards.push_back(view.header);
    rows += view.header.entries;
    rows_at_once = std::max(rows_at_once, view.header.credits);
    on_forward ? on_forward(*this, view) : Reply(view);
  }

  FrameBuffer MakeReply(const FrameView& view, const std::function<void(FrameHeader&)>& edit = {}) {
    FrameBuffer frame = *transport_->Lease(ReplyBytes(view.header.entries, kShape.row_bytes()));
    for (uint32_t t = 0; t < view.header.tokens; ++t) {
      for (uint32_t i = view.offsets[t]; i < view.offsets[t + 1]; ++i) {
        PureExpert(kShape, LayerId{view.header.layer}, ExpertId{view.experts[i]},
                   view.rows + t * kShape.row_bytes(),
                   frame.data() + sizeof(FrameHeader) + i * kShape.row_bytes());
      }
    }
    FrameHeader header = AnswerTo(view.header, FrameKind::kReply, FrameReason::kNone);
    if (edit) edit(header);
    SealFrame(header, {frame.data(), frame.size()});
    return frame;
  }
  void Reply(const FrameView& view, const std::function<void(FrameHeader&)>& edit = {}) {
    Post(MakeReply(view, edit));
  }
  void Post(FrameBuffer frame) { ASSERT_TRUE(transport_->Post(back_, std::move(frame)).ok()); }
  void Send(const FrameHeader& header) {
    FrameBuffer frame = *transport_->Lease(sizeof header);
    SealFrame(header, {frame.data(), frame.size()});
    Post(std::move(frame));
  }
  void Nack(const FrameView& view, FrameReason reason) {
    Send(AnswerTo(view.header, FrameKind::kNack, reason));
  }
  void Die() { transport_.reset(); }

  std::vector<FrameHeader> forwards;
  uint64_t rows = 0;
  uint32_t rows_at_once = 0;
  int probes = 0;
  int refused = 0;

 private:
  Loop& loop_;
  const Incarnation incarnation_;
  std::unique_ptr<LoopbackTransport> transport_;
  EndpointId back_;
  FrameBuffer trial_;  // offered
};

struct Job {
  DispatchRequest request;
  std::vector<std::byte> rows;
  std::vector<uint16_t> experts;
  std::vector<std::byte> replies, expected;
  absl::StatusOr<DispatchResult> result = absl::UnknownError("not done");
  Time finished{};
};

Task<void> RunJob(Loop& loop, Dispatcher& dispatcher, Job* job) {
  job->result = co_await dispatcher.Dispatch(job->request, job->replies.data());
  job->finished = loop.Now();
}

Task<void> At(Loop& loop, Duration when, std::function<void()> what) {
  co_await loop.Sleep(when);
  what();
}

class DispatchTest : public testing::Test {
 protected:
  DispatchTest() : loop_(Loop::Simulated(1)), hub_(*loop_, kHubNode) {
    hub_.set_poison(true);
    attention_ = hub_.Open("attention");
    DispatcherOptions options;
    options.shape = kShape;
    options.on_peer_lost = [this](MemberId member, const absl::Status&) {
      lost_.push_back(member.value);
    };
    dispatcher_ = std::make_unique<Dispatcher>(*loop_, *attention_, kSelf, std::move(options));
  }
  ~DispatchTest() override {
    loop_->Kill(kAttentionNode);
    loop_->Kill(kWorkerNode);
    dispatcher_.reset();
    workers_.clear();
  }

  // Before the first worker.
  void VerifyEvery(uint32_t dispatches) {
    dispatcher_.reset();
    DispatcherOptions options;
    options.shape = kShape;
    options.verify_every = dispatches;
    dispatcher_ = std::make_unique<Dispatcher>(*loop_, *attention_, kSelf, std::move(options));
  }

  // Worker i + 1 at "worker-i+1".
  ScriptedWorker& AddWorker(uint32_t credits = limits::kCreditRows) {
    const uint32_t id = static_cast<uint32_t>(workers_.size()) + 1;
    workers_.push_back(
        std::make_unique<ScriptedWorker>(*loop_, hub_, "worker-" + std::to_string(id), 2000 + id));
    dispatcher_->AddPeer(MemberId{id}, workers_.back()->Pair(*attention_, credits));
    return *workers_.back();
  }
  ScriptedWorker& worker(size_t id) { return *workers_[id - 1]; }

  // Expert e is on `replicas(e)`.
  void SetTable(const std::function<std::vector<MemberId>(uint32_t)>& replicas) {
    auto table = std::make_shared<ClusterTable>();
    table->term = 1;
    table->epoch = ++epoch_;
    table->layers = kShape.layers;
    table->experts = kShape.experts;
    for (uint32_t id = 1; id <= workers_.size(); ++id) {
      Member member;
      member.id = MemberId{id};
      member.incarnation = Incarnation{2000 + id};
      member.state = states_.contains(member.id) ? states_[member.id] : MemberState::kActive;
      table->members.push_back(member);
    }
    for (uint32_t i = 0; i < kShape.layers * kShape.experts; ++i) {
      table->replicas.push_back(replicas(i % kShape.experts));
    }
    dispatcher_->UpdateTable(table);
  }
  void EverythingOn(std::vector<MemberId> members) {
    SetTable([&](uint32_t) { return members; });
  }

  std::unique_ptr<Job> Start(int32_t tokens, Time deadline = kNever, uint64_t seed = 5) {
    auto job = std::make_unique<Job>();
    std::mt19937_64 rng(seed);
    const size_t entries = static_cast<size_t>(tokens) * kShape.top_k;
    job->rows.resize(tokens * kShape.row_bytes());
    for (std::byte& b : job->rows) b = std::byte(rng());
    for (int32_t t = 0; t < tokens; ++t) {
      const uint16_t a = rng() % kShape.experts;
      const uint16_t b = (a + 1 + rng() % (kShape.experts - 1)) % kShape.experts;
      job->experts.push_back(std::min(a, b));
      job->experts.push_back(std::max(a, b));
    }
    job->replies.assign(entries * kShape.row_bytes(), std::byte{0});
    job->expected = job->replies;
    job->request = {.request_key = ++request_key_,
                    .layer = LayerId{2},
                    .tokens = tokens,
                    .rows = job->rows.data(),
                    .experts = job->experts.data(),
                    .deadline = deadline};
    ReferenceDispatch(
        kShape, job->request,
        [](LayerId layer, ExpertId expert, const std::byte* row, std::byte* out) {
          PureExpert(kShape, layer, expert, row, out);
        },
        job->expected.data());
    loop_->Spawn(kAttentionNode, RunJob(*loop_, *dispatcher_, job.get()));
    return job;
  }
  void Later(Duration when, std::function<void()> what) {
    loop_->Spawn(kWorkerNode, At(*loop_, when, std::move(what)));
  }
  static void ExpectWhole(const Job& job) {
    ASSERT_TRUE(job.result.ok()) << job.result.status();
    EXPECT_THAT(job.result->missing, IsEmpty());
    EXPECT_THAT(job.result->failed_tokens, IsEmpty());
    EXPECT_EQ(job.replies, job.expected);
  }
  const DispatcherStats& stats() { return dispatcher_->stats(); }

  std::unique_ptr<Loop> loop_;
  LoopbackHub hub_;
  std::unique_ptr<LoopbackTransport> attention_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::unique_ptr<ScriptedWorker>> workers_;
  std::vector<uint32_t> lost_;
  std::map<MemberId, MemberState> states_;  // other than active
  uint64_t epoch_ = 0;
  uint64_t request_key_ = 0;
};

TEST_F(DispatchTest, EveryRowComesBackInPlace) {
  AddWorker();
  AddWorker();
  AddWorker();
  SetTable([](uint32_t e) { return std::vector<MemberId>{MemberId{e % 3 + 1}}; });
  for (int32_t tokens : {1, 2, 7, 64, 500}) {
    auto job = Start(tokens);
    loop_->Run();
    ExpectWhole(*job);
  }
  EXPECT_EQ(dispatcher_->credits_in_use(), 0u);
  EXPECT_EQ(attention_->leased(), 0u);
  EXPECT_EQ(stats().resends(), 0u);
  EXPECT_EQ(stats().hedges, 0u);
}

TEST_F(DispatchTest, AnEmptyDispatchIsDoneAtOnce) {
  auto job = Start(0);
  loop_->Run();
  ExpectWhole(*job);
}

TEST_F(DispatchTest, ATokensRowGoesOnceToAWorker) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  auto job = Start(10);
  loop_->Run();
  ExpectWhole(*job);
  ASSERT_EQ(one.forwards.size(), 1u);
  EXPECT_EQ(one.forwards[0].tokens, 10u);
  EXPECT_EQ(one.forwards[0].entries, 20u);
}

TEST_F(DispatchTest, CreditsBoundTheRowsInFlight) {
  ScriptedWorker& one = AddWorker(/*credits=*/16);
  EverythingOn({MemberId{1}});
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(1ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  auto job = Start(200);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_LE(one.rows_at_once, 16u);
  EXPECT_EQ(one.rows, 400u);
  EXPECT_EQ(dispatcher_->credits_in_use(), 0u);
}

TEST_F(DispatchTest, FramesKeepTheirLimits) {
  ScriptedWorker& one = AddWorker(100000);
  EverythingOn({MemberId{1}});
  auto job = Start(1000);
  loop_->Run();
  ExpectWhole(*job);
  for (const FrameHeader& header : one.forwards) {
    EXPECT_LE(header.tokens, limits::kFrameTokensMax);
    EXPECT_LE(header.entries * kShape.row_bytes(), limits::kPartBytesMax);
  }
}

TEST_F(DispatchTest, AWorkerThatDiesIsReplacedAtOnce) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});  // all goes to 1
  one.on_forward = [this](ScriptedWorker& self, const FrameView&) {
    Later(1ms, [&self] { self.Die(); });
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().resends_endpoint, 1u);
  EXPECT_EQ(job->finished.time_since_epoch(), 1ms);
  EXPECT_THAT(lost_, ElementsAre(1u));
}

TEST_F(DispatchTest, TheDeathSignalResends) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});
  one.on_forward = [](ScriptedWorker&, const FrameView&) {};
  Later(5ms, [this] { dispatcher_->RemovePeer(MemberId{1}, absl::UnavailableError("gone")); });
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().resends_removed, 1u);
  EXPECT_EQ(job->finished.time_since_epoch(), 5ms);
  EXPECT_THAT(lost_, IsEmpty());
}

// W6: stopped again and again while it has nothing to do, a worker says and believes that it is
// fast.
TEST_F(DispatchTest, WhoseRepliesComeLaterThanItSaysIsAskedLessUntilItIsWell) {
  ScriptedWorker& one = AddWorker();
  ScriptedWorker& two = AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 100, .row_us = 10});
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(9ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  const auto run = [&](int dispatches) {
    const size_t before = one.forwards.size();
    for (int i = 0; i < dispatches; ++i) {
      auto job = Start(8);
      loop_->RunUntil(loop_->Now() + 10ms);
      ExpectWhole(*job);
    }
    return one.forwards.size() - before;
  };
  EXPECT_LT(run(300), 30u);
  EXPECT_EQ(stats().hedges, 0u);
  EXPECT_FALSE(dispatcher_->IsSuspect(MemberId{1}));
  one.on_forward = nullptr;
  run(100);  // a second
  EXPECT_EQ(run(100), 100u);
  EXPECT_GT(two.forwards.size(), 200u);
}

TEST_F(DispatchTest, SilenceIsHedgedAndThePeerIsSuspect) {
  ScriptedWorker& one = AddWorker();
  ScriptedWorker& two = AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1000, .row_us = 100});
  one.on_forward = [](ScriptedWorker&, const FrameView&) {};
  one.answers_probes = false;  // stopped
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().hedges, 1u);
  EXPECT_EQ(stats().hedges_won, 1u);
  EXPECT_EQ(job->finished.time_since_epoch(), 50ms);
  EXPECT_TRUE(dispatcher_->IsSuspect(MemberId{1}));
  EXPECT_GT(dispatcher_->credits_in_use(), 0u);  // the stopped peer keeps its rows
  // No new work until it answers.
  auto next = Start(8);
  loop_->Run();
  ExpectWhole(*next);
  EXPECT_EQ(one.forwards.size(), 1u);
  EXPECT_EQ(two.forwards.size(), 2u);
  EXPECT_GE(one.probes, 1);
}

TEST_F(DispatchTest, ALateReplyIsDroppedAndClearsSuspicion) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1000, .row_us = 100});
  one.answers_probes = false;
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(200ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(job->finished.time_since_epoch(), 50ms);
  EXPECT_FALSE(dispatcher_->IsSuspect(MemberId{1}));
  EXPECT_EQ(stats().dropped_unknown, 1u);
  EXPECT_EQ(dispatcher_->credits_in_use(), 0u);
}

// The last thing that it could answer came back damaged: it is not suspected for ever.
TEST_F(DispatchTest, ADamagedLateReplyEndsSuspicionToo) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1000, .row_us = 100});
  one.answers_probes = false;
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    frame->data()[frame->size() - 3] ^= std::byte{4};
    Later(200ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().dropped_corrupt, 1u);
  EXPECT_FALSE(dispatcher_->IsSuspect(MemberId{1}));
  one.on_forward = nullptr;
  job = Start(8);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 2u);
}

// A frame is lost on the way, and there is nobody else: the peer says that it does not know it.
TEST_F(DispatchTest, ALostFrameIsSentAgainToTheOnlyReplica) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int count = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    if (++count > 1) self.Reply(view);
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().resends_lost, 1u);
  EXPECT_EQ(job->finished.time_since_epoch(), 50ms);
}

// The dispatch went to sleep before there was anybody to send to: the timer of what is sent later
// must wake it all the same.
TEST_F(DispatchTest, AFrameLostAfterAWaitForTheTableIsSentAgain) {
  SetTable([](uint32_t) { return std::vector<MemberId>{}; });
  ScriptedWorker& one = AddWorker();
  int count = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    if (++count > 1) self.Reply(view);
  };
  Later(1s, [this] { EverythingOn({MemberId{1}}); });
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(job->finished.time_since_epoch(), 1050ms);
}

TEST_F(DispatchTest, HedgesKeepToTheirBudget) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});
  // Alive, and always late: each time a first piece of evidence.
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(60ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  one.answers_probes = false;
  for (int i = 0; i < 40; ++i) {
    auto job = Start(1);
    loop_->Run();
    ExpectWhole(*job);
  }
  EXPECT_LE(stats().hedges, 8u + 4u);
  EXPECT_GE(stats().hedges, 8u);
  EXPECT_GT(stats().hedges_denied, 10u);
}

TEST_F(DispatchTest, BusyIsTriedAgainAndIsNoAttempt) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int count = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    ++count <= 10 ? self.Nack(view, FrameReason::kBusy) : self.Reply(view);
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().busy_nacks, 10u);
}

TEST_F(DispatchTest, NotHeldGoesToAReplica) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Nack(view, FrameReason::kNotHeld);
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(one.forwards.size(), 1u);
  EXPECT_EQ(stats().resends_nack, 1u);
}

// A share is refused for one expert that has moved; the worker is the only one with the others.
// The table that says so may come before the refusal or after it.
TEST_F(DispatchTest, WhatIsRefusedForAnExpertThatMovedGoesWhereTheTableSays) {
  for (const bool table_first : {false, true}) {
    SCOPED_TRACE(table_first);
    ScriptedWorker& from = AddWorker();
    ScriptedWorker& to = AddWorker();
    const MemberId here{static_cast<uint32_t>(workers_.size()) - 1}, there{here.value + 1};
    EverythingOn({here});
    bool moved = false;
    const auto move = [&, here, there] {
      moved = true;
      SetTable([&](uint32_t e) { return std::vector{e == 3 ? there : here}; });
    };
    from.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
      const bool has_it_all =
          std::find(view.experts.begin(), view.experts.end(), 3) == view.experts.end();
      if (has_it_all) return self.Reply(view);
      if (table_first) move();
      self.Nack(view, FrameReason::kNotHeld);
      if (!table_first) Later(5ms, move);
    };
    const Time begin = loop_->Now();
    auto job = Start(30);
    loop_->Run();
    ExpectWhole(*job);
    EXPECT_TRUE(moved);
    EXPECT_LE(job->finished - begin, 5ms);
    EXPECT_EQ(to.forwards.size(), 1u);
  }
}

TEST_F(DispatchTest, ExpertsMayMoveMoreOftenThanAShareIsTried) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  constexpr size_t kMoves = 2 * limits::kAttemptsMax;
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    if (self.forwards.size() > kMoves) return self.Reply(view);
    self.Nack(view, FrameReason::kNotHeld);
    Later(1ms, [this] { EverythingOn({MemberId{1}}); });
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(one.forwards.size(), kMoves + 1);
}

TEST_F(DispatchTest, WithoutAReplicaItWaitsForTheTable) {
  AddWorker();
  SetTable([](uint32_t) { return std::vector<MemberId>{}; });
  Later(3s, [this] { EverythingOn({MemberId{1}}); });
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(job->finished.time_since_epoch(), 3s);
}

TEST_F(DispatchTest, WithoutAReplicaItEndsWithNames) {
  AddWorker();
  SetTable([](uint32_t e) {
    return e == 3 ? std::vector<MemberId>{} : std::vector<MemberId>{MemberId{1}};
  });
  auto job = Start(30);
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_THAT(job->result->missing, ElementsAre(ExpertId{3}));
  std::vector<int32_t> need;
  for (int32_t t = 0; t < 30; ++t) {
    if (job->experts[2 * t] == 3 || job->experts[2 * t + 1] == 3) need.push_back(t);
  }
  ASSERT_FALSE(need.empty());
  EXPECT_EQ(job->result->failed_tokens, need);
  EXPECT_EQ(job->finished.time_since_epoch(), 10s);
  EXPECT_EQ(stats().dispatches_missing, 1u);
}

TEST_F(DispatchTest, WhatNobodyNeedsIsNotAskedFor) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  auto job = Start(3);
  const uint8_t skip[] = {0, 1, 0};
  job->request.skip = skip;
  const size_t token_bytes = kShape.top_k * kShape.row_bytes();
  std::memset(job->expected.data() + token_bytes, 0, token_bytes);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(one.rows, 2 * kShape.top_k);
}

TEST_F(DispatchTest, TheDeadlineEndsIt) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  one.on_forward = [](ScriptedWorker&, const FrameView&) {};
  one.answers_probes = false;
  auto job = Start(3, Time(70ms));
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_THAT(job->result->failed_tokens, ElementsAre(0, 1, 2));
  EXPECT_EQ(job->finished.time_since_epoch(), 70ms);
}

TEST_F(DispatchTest, ADamagedFrameIsNoAttemptButNotForEver) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int damaged = limits::kDamagesMax - 1;
  one.on_forward = [&damaged](ScriptedWorker& self, const FrameView& view) {
    EXPECT_EQ(view.header.attempt, 1);
    damaged-- > 0 ? self.Nack(view, FrameReason::kCorrupt) : self.Reply(view);
  };
  auto job = Start(3);
  loop_->Run();
  ExpectWhole(*job);

  damaged = 1000;
  one.forwards.clear();
  job = Start(3);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), static_cast<size_t>(limits::kDamagesMax));
  EXPECT_THAT(job->result->failed_tokens, ElementsAre(0, 1, 2));
}

// A NACK repeats the header as it arrived: the worker is not to blame for what is wrong in it.
TEST_F(DispatchTest, AHeaderDamagedOnTheWayIsNotHeldAgainstTheWorker) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int damaged = 6;
  one.on_forward = [&damaged](ScriptedWorker& self, const FrameView& view) {
    if (damaged-- <= 0) return self.Reply(view);
    FrameHeader header = AnswerTo(view.header, FrameKind::kNack, FrameReason::kCorrupt);
    if (damaged % 2 == 0) {
      header.layer ^= 1;  // fits, but is not what was asked
    } else {
      header.hidden ^= 1;  // fits no model
    }
    self.Send(header);
  };
  auto job = Start(3);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_TRUE(dispatcher_->bad_workers().empty());
}

TEST_F(DispatchTest, AtMostThreeAttempts) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Nack(view, FrameReason::kExpired);
  };
  auto job = Start(3);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 3u);
  EXPECT_EQ(one.forwards.back().attempt, 3);
  EXPECT_THAT(job->result->failed_tokens, ElementsAre(0, 1, 2));
  EXPECT_EQ(job->finished.time_since_epoch(), 0ms);  // hopeless: no reason to wait
}

TEST_F(DispatchTest, AChangedReplyIsRefusedAndAskedForAgain) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int count = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    FrameBuffer frame = self.MakeReply(view);
    if (++count == 1) frame.data()[frame.size() - 3] ^= std::byte{4};
    self.Post(std::move(frame));
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().dropped_corrupt, 1u);
  EXPECT_EQ(job->finished.time_since_epoch(), 0ms);
}

// Right key, right CRC, wrong words: every field of identity.
TEST_F(DispatchTest, RepliesThatDoNotMatchAreRefused) {
  const std::function<void(FrameHeader&)> edits[] = {
      [](FrameHeader& h) { h.request_key ^= 1; }, [](FrameHeader& h) { h.epoch ^= 1; },
      [](FrameHeader& h) { h.layer ^= 1; },       [](FrameHeader& h) { h.micro_batch ^= 1; },
      [](FrameHeader& h) { h.attempt = 3; },      [](FrameHeader& h) { h.part = 1, h.parts = 2; }};
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  for (const auto& edit : edits) {
    int count = 0;
    one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
      ++count == 1 ? self.Reply(view, edit) : self.Reply(view);
    };
    const uint64_t before = stats().dropped_mismatch;
    auto job = Start(8);
    loop_->Run();
    ExpectWhole(*job);
    EXPECT_EQ(stats().dropped_mismatch, before + 1);
  }
}

TEST_F(DispatchTest, StrangersAndOldIncarnationsAreDropped) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int count = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    if (++count > 1) return self.Reply(view);
    self.Reply(view, [](FrameHeader& h) { h.receiver ^= 1; });     // for our last life
    self.Reply(view, [](FrameHeader& h) { h.sender ^= 1; });       // from its last life
    self.Reply(view, [](FrameHeader& h) { h.session_key ^= 1; });  // no pair of ours
    self.Reply(view, [](FrameHeader& h) { h.sequence += 1000; });  // forgotten
    self.Reply(view);
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().dropped_incarnation, 1u);
  EXPECT_EQ(stats().dropped_stranger, 2u);
  EXPECT_EQ(stats().dropped_unknown, 1u);
}

TEST_F(DispatchTest, ADuplicateIsDropped) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Reply(view);
    self.Reply(view);
  };
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().dropped_unknown, 1u);
  EXPECT_EQ(dispatcher_->credits_in_use(), 0u);
}

// A row that is not finite, in a reply whose CRC is right.
void PostNotFinite(ScriptedWorker& self, const FrameView& view) {
  FrameBuffer frame = self.MakeReply(view);
  const uint16_t nan = 0x7fc0;
  std::memcpy(frame.data() + sizeof(FrameHeader) + 10, &nan, sizeof nan);
  SealFrame(AnswerTo(view.header, FrameKind::kReply, FrameReason::kNone),
            {frame.data(), frame.size()});
  self.Post(std::move(frame));
}

TEST_F(DispatchTest, ARowThatIsNotFiniteIsAskedOfAReplicaAndItsWorkerQuarantined) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});
  one.on_forward = PostNotFinite;
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().resends_not_finite, 1u);
  EXPECT_EQ(stats().quarantined_not_finite, 1u);
  auto next = Start(8);
  loop_->Run();
  ExpectWhole(*next);
  EXPECT_EQ(one.forwards.size(), 1u);
}

// If no replica can, the input is bad: its token fails, nobody is blamed.
TEST_F(DispatchTest, AnInputThatNobodyCanComputeFailsItsTokenOnly) {
  AddWorker().on_forward = PostNotFinite;
  AddWorker().on_forward = PostNotFinite;
  EverythingOn({MemberId{1}, MemberId{2}});
  auto job = Start(1);
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_THAT(job->result->failed_tokens, ElementsAre(0));
  EXPECT_EQ(stats().quarantined_not_finite, 0u);
  EXPECT_LT(job->finished.time_since_epoch(), 1s);
}

// Frames that answer nothing, though their CRC is right: its work goes elsewhere for good.
TEST_F(DispatchTest, AWorkerOfWrongFramesIsQuarantinedUntilTheRouterTrustsIt) {
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e6, .row_us = 1e4});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Reply(view, [](FrameHeader& h) { h.layer ^= 1; });
  };
  for (int i = 0; i < 4; ++i) {
    auto job = Start(8);
    loop_->Run();
    ExpectWhole(*job);
  }
  EXPECT_EQ(stats().quarantined_wrong_frame, 1u);
  ASSERT_EQ(dispatcher_->bad_workers().size(), 1u);
  EXPECT_EQ(dispatcher_->bad_workers()[0].incarnation, Incarnation{2001});
  const size_t asked = one.forwards.size();
  one.on_forward = nullptr;
  const auto show = [&](MemberState state) {
    states_ = {{MemberId{1}, state}};
    EverythingOn({MemberId{1}, MemberId{2}});
    auto job = Start(8);
    loop_->Run();
    ExpectWhole(*job);
  };
  show(MemberState::kActive);  // the router has not heard yet
  EXPECT_EQ(one.forwards.size(), asked);
  show(MemberState::kQuarantined);
  EXPECT_EQ(one.forwards.size(), asked);
  show(MemberState::kJoining);  // as it comes back: its experts went elsewhere meanwhile
  EXPECT_GT(one.forwards.size(), asked);
  EXPECT_TRUE(dispatcher_->bad_workers().empty());
}

// Where nobody else can be asked, what answered wrongly is asked again: three times it may be lost
// besides.
TEST_F(DispatchTest, AWrongAnswerIsNoAttempt) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  one.on_forward = [asked = 0](ScriptedWorker& self, const FrameView& view) mutable {
    ++asked;
    if (asked <= 2) return self.Reply(view, [](FrameHeader& h) { h.layer ^= 1; });
    if (asked <= 4) return self.Nack(view, FrameReason::kExpired);
    self.Reply(view);
  };
  auto job = Start(1);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(one.forwards.size(), 5u);
  EXPECT_EQ(one.forwards.back().attempt, limits::kAttemptsMax);
}

// One changed bit under a good CRC: `times` replies, then none.
void FlipsABit(ScriptedWorker& worker, int times) {
  worker.on_forward = [left = times](ScriptedWorker& self, const FrameView& view) mutable {
    FrameBuffer frame = self.MakeReply(view);
    if (left-- > 0) frame.data()[sizeof(FrameHeader)] ^= std::byte{1};
    SealFrame(AnswerTo(view.header, FrameKind::kReply, FrameReason::kNone),
              {frame.data(), frame.size()});
    self.Post(std::move(frame));
  };
}

TEST_F(DispatchTest, DoubleExecutionFindsAFlippedBitAndAThirdReplicaSaysWhose) {
  VerifyEvery(2);
  ScriptedWorker& one = AddWorker();
  AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}, MemberId{3}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e5, .row_us = 1e4});
  dispatcher_->UpdateCost(MemberId{3}, {.base_us = 1e6, .row_us = 1e5});
  auto job = Start(8);
  loop_->Run();
  EXPECT_EQ(stats().verified, 0u);
  FlipsABit(one, 1);
  job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().verified, 1u);
  EXPECT_EQ(stats().verified_mismatches, 1u);
  EXPECT_EQ(stats().verified_unresolved, 0u);
  EXPECT_EQ(stats().quarantined_mismatch, 1u);
  EXPECT_EQ(dispatcher_->bad_workers()[0].incarnation, Incarnation{2001});
  EXPECT_EQ(stats().dispatches, 2u);
}

// With two replicas the first is asked again: what it does not say twice was wrong.
TEST_F(DispatchTest, OfTwoReplicasTheOneThatContradictsItselfIsWrong) {
  VerifyEvery(1);
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e5, .row_us = 1e4});
  FlipsABit(one, 1);
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().quarantined_mismatch, 1u);
}

TEST_F(DispatchTest, OfTwoReplicasTheSecondMayBeTheOne) {
  VerifyEvery(1);
  AddWorker();
  ScriptedWorker& two = AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e5, .row_us = 1e4});
  FlipsABit(two, 1);
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().quarantined_mismatch, 1u);
  EXPECT_EQ(dispatcher_->bad_workers()[0].incarnation, Incarnation{2002});
}

TEST_F(DispatchTest, WhereNobodyCanSayWhoIsRightTheTokenFails) {
  VerifyEvery(1);
  ScriptedWorker& one = AddWorker();
  AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e5, .row_us = 1e4});
  FlipsABit(one, 1000);
  auto job = Start(8);
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_EQ(job->result->failed_tokens.size(), 1u);
  EXPECT_EQ(stats().verified_unresolved, 1u);
  EXPECT_TRUE(dispatcher_->bad_workers().empty());
}

// A second execution is a luxury: a worker that does not answer costs it, not the stream.
TEST_F(DispatchTest, DoubleExecutionWaitsForNobody) {
  VerifyEvery(1);
  AddWorker();
  ScriptedWorker& silent = AddWorker();
  silent.on_forward = [](ScriptedWorker&, const FrameView&) {};
  silent.answers_probes = false;
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 1e4, .row_us = 10});
  auto job = Start(4);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(stats().verified, 1u);
  EXPECT_LE(job->finished.time_since_epoch(), 60ms);
  const Time before = loop_->Now();
  job = Start(4);  // nobody but a suspect is left to compare with
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_LT(job->finished - before, 10ms);
  EXPECT_EQ(stats().hedges, 0u);
}

// Token 3 kills every worker that computes it. The third time it is alone: its neighbours get
// their rows, and only it fails.
TEST_F(DispatchTest, ARowThatKillsItsWorkersFailsAlone) {
  for (int i = 0; i < 4; ++i) AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}, MemberId{3}, MemberId{4}});
  auto job = Start(8);
  const std::byte* poison = job->rows.data() + 3 * kShape.row_bytes();
  int dead = 0;
  for (uint32_t id = 1; id <= 4; ++id) {
    worker(id).on_forward = [&, id, gone = false](ScriptedWorker& self,
                                                  const FrameView& view) mutable {
      for (uint32_t t = 0; t < view.header.tokens; ++t) {
        if (std::memcmp(view.rows + t * kShape.row_bytes(), poison, kShape.row_bytes()) != 0) {
          continue;
        }
        if (!std::exchange(gone, true)) {
          ++dead;
          Later(1ms, [this, id] {
            dispatcher_->RemovePeer(MemberId{id}, absl::UnavailableError("killed"));
          });
        }
      }
      if (!gone) self.Reply(view);
    };
  }
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_THAT(job->result->failed_tokens, ElementsAre(3));
  EXPECT_THAT(job->result->poison_tokens, ElementsAre(3));
  EXPECT_LE(dead, 3);
  const size_t row_bytes = kShape.top_k * kShape.row_bytes();
  for (size_t token : {0, 1, 2, 4, 5, 6, 7}) {
    EXPECT_EQ(std::memcmp(job->replies.data() + token * row_bytes,
                          job->expected.data() + token * row_bytes, row_bytes),
              0)
        << token;
  }
}

// A connection that breaks under the same rows again and again kills nobody: as long as the worker
// comes back as the process it was, its rows are asked for again and are nobody's fault.
TEST_F(DispatchTest, AConnectionThatBreaksIsNoDeath) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  int broken = 0;
  one.on_forward = [&](ScriptedWorker& self, const FrameView& view) {
    if (broken == 6) return self.Reply(view);
    ++broken;
    Later(1ms, [this] {
      dispatcher_->RemovePeer(MemberId{1}, absl::UnavailableError("reset"));
      Later(20ms, [this] { dispatcher_->AddPeer(MemberId{1}, worker(1).Pair(*attention_)); });
    });
  };
  auto job = Start(1);
  loop_->Run();
  EXPECT_EQ(broken, 6);
  ExpectWhole(*job);
  EXPECT_LT(job->finished.time_since_epoch(), 1s);
}

// A request whose rows were alone at a worker that was lost waits for the word of the router.
TEST_F(DispatchTest, TheRouterSaysWhoDied) {
  for (int i = 0; i < 4; ++i) AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}, MemberId{3}, MemberId{4}});
  std::vector<Duration> died;
  for (uint32_t id = 1; id <= 4; ++id) {
    worker(id).on_forward = [&, id](ScriptedWorker&, const FrameView&) {
      dispatcher_->RemovePeer(MemberId{id}, absl::UnavailableError("killed"));
      died.push_back(loop_->Now().time_since_epoch());
    };
  }
  // The token's two experts are at one worker each time.
  auto job = Start(1);
  Later(500ms, [&] {
    ASSERT_EQ(died.size(), 3u);
    EXPECT_FALSE(job->result.ok()) << "not judged yet";
    for (auto& w : workers_) w->Die();
    workers_.clear();
    EverythingOn({});
  });
  loop_->Run();
  ASSERT_TRUE(job->result.ok());
  EXPECT_THAT(job->result->poison_tokens, ElementsAre(0));
  EXPECT_EQ(job->finished.time_since_epoch(), 500ms);
}

// What others have queued at a worker counts, as its last answer told, and is worked off meanwhile.
TEST_F(DispatchTest, WorkGoesWhereOthersHaveLessQueued) {
  ScriptedWorker& one = AddWorker();
  ScriptedWorker& two = AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{1}, {.base_us = 10, .row_us = 1});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 10, .row_us = 2});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Reply(view, [](FrameHeader& h) { h.remaining_us = 50'000; });
  };
  auto job = Start(1);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 1u);
  job = Start(1);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 1u);
  EXPECT_EQ(two.forwards.size(), 1u);
  loop_->RunUntil(loop_->Now() + 60ms);
  job = Start(1);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 2u);
}

TEST_F(DispatchTest, ABacklogBeyondBeliefIsWorkedOffInASecond) {
  ScriptedWorker& one = AddWorker();
  ScriptedWorker& two = AddWorker();
  EverythingOn({MemberId{1}, MemberId{2}});
  dispatcher_->UpdateCost(MemberId{2}, {.base_us = 100, .row_us = 1});
  one.on_forward = [](ScriptedWorker& self, const FrameView& view) {
    self.Reply(view, [](FrameHeader& h) { h.remaining_us = UINT32_MAX; });
  };
  auto job = Start(1);
  loop_->Run();
  job = Start(1);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 1u);
  EXPECT_EQ(two.forwards.size(), 1u);
  loop_->RunUntil(loop_->Now() + 1s);
  job = Start(1);
  loop_->Run();
  EXPECT_EQ(one.forwards.size(), 2u);
}

TEST_F(DispatchTest, AKilledDispatchLeavesNothing) {
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(10ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  {
    auto job = Start(8);
    loop_->RunUntil(Time(5ms));
    loop_->Kill(kAttentionNode);
  }  // its buffers are gone when the reply comes
  loop_->Run();
  EXPECT_EQ(dispatcher_->credits_in_use(), 0u);
  EXPECT_EQ(stats().dropped_unknown, 1u);
}

TEST_F(DispatchTest, ManyAtOnceAndDecodeFirst) {
  ScriptedWorker& one = AddWorker(/*credits=*/8);
  EverythingOn({MemberId{1}});
  one.on_forward = [this](ScriptedWorker& self, const FrameView& view) {
    auto frame = std::make_shared<FrameBuffer>(self.MakeReply(view));
    Later(1ms, [&self, frame] { self.Post(std::move(*frame)); });
  };
  auto prefill = Start(100);
  prefill->request.phase = FramePhase::kPrefill;
  loop_->RunUntil(Time(3ms));
  auto decode = Start(2);
  loop_->Run();
  ExpectWhole(*prefill);
  ExpectWhole(*decode);
  EXPECT_LT(decode->finished, prefill->finished);
  EXPECT_LT(decode->finished.time_since_epoch(), 8ms);
}

TEST_F(DispatchTest, ARequestThatDoesNotFitIsAnError) {
  AddWorker();
  EverythingOn({MemberId{1}});
  auto outside = Start(2);
  outside->experts[1] = kShape.experts;
  auto unordered = Start(2);
  std::swap(unordered->experts[0], unordered->experts[1]);
  loop_->Run();
  EXPECT_EQ(outside->result.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(unordered->result.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DispatchTest, EmptyFrameMemoryWaits) {
  loop_->Kill(kAttentionNode);
  dispatcher_.reset();
  attention_.reset();
  attention_ = hub_.Open("attention", 16u << 10);
  DispatcherOptions options;
  options.shape = kShape;
  dispatcher_ = std::make_unique<Dispatcher>(*loop_, *attention_, kSelf, std::move(options));
  ScriptedWorker& one = AddWorker();
  EverythingOn({MemberId{1}});
  std::vector<FrameBuffer> held;
  for (int i = 0; i < 4; ++i) held.push_back(*attention_->Lease(4096));
  Later(20ms, [&] { held.clear(); });
  auto job = Start(8);
  loop_->Run();
  ExpectWhole(*job);
  EXPECT_EQ(one.forwards.size(), 1u);
}

// Every place of a row, every kind of number.
TEST(CopyFiniteRowTest, FindsWhatIsNotFiniteAnywhere) {
  for (DType type : {DType::kBF16, DType::kF32}) {
    for (uint32_t hidden : {1, 2, 3, 31, 64, 65, 77, 200}) {
      const ExchangeShape shape{
          .layers = 1, .experts = 1, .top_k = 1, .hidden = hidden, .row_type = type};
      const size_t width = SizeOf(type);
      const size_t upper = width - 2;  // where sign and exponent lie
      std::vector<std::byte> row(shape.row_bytes()), out(shape.row_bytes());
      std::mt19937_64 rng(hidden);
      for (size_t i = 0; i < hidden; ++i) {
        uint64_t bits = rng();
        std::memcpy(&row[i * width], &bits, width);
        // Finite: the largest, the smallest, both signs; the exponent is never all ones.
        const uint16_t word = static_cast<uint16_t>(i % 3 == 0 ? 0x7f7f : i % 3 == 1 ? 0xff7f : 0);
        std::memcpy(&row[i * width + upper], &word, sizeof word);
      }
      EXPECT_TRUE(CopyFiniteRow(row.data(), out.data(), shape));
      EXPECT_EQ(row, out);
      for (size_t i = 0; i < hidden; ++i) {
        for (uint16_t word : {0x7f80, 0xff80, 0x7fc0, 0xffff}) {
          std::vector<std::byte> bad = row;
          std::memcpy(&bad[i * width + upper], &word, sizeof word);
          EXPECT_FALSE(CopyFiniteRow(bad.data(), out.data(), shape)) << i << " of " << hidden;
        }
      }
    }
  }
}

TEST(ExchangeReferenceTest, CombineAddsInAscendingExpertOrder) {
  const ExchangeShape shape{
      .layers = 1, .experts = 4, .top_k = 3, .hidden = 2, .row_type = DType::kF32};
  const float rows[] = {1e8f, 1, 1, 2, -1e8f, 3};
  const float weights[] = {1, 1, 1};
  float residual[] = {10, 20};
  ReferenceCombine(shape, 1, reinterpret_cast<const std::byte*>(rows), weights, residual);
  EXPECT_EQ(residual[0], 10.0f + std::fma(1.0f, -1e8f, std::fma(1.0f, 1.0f, 1e8f)));
  EXPECT_EQ(residual[1], 26);
}

}  // namespace
}  // namespace bottega
