// One router with members that are only sessions, in one thread, on a virtual clock.
#include <gtest/gtest.h>

#include "core/base/reason.h"
#include "core/cluster/protocol.h"
#include "core/service/status_client.h"
#include "tests/router/router_world.h"

namespace bottega {

void World::Chaos() {
  Join("attention-0", Role::kAttention);
  Join("attention-1", Role::kAttention);
  for (int i = 0; i < 5; ++i) Join("expert-" + std::to_string(i));
  Run(500ms);
  for (int step = 0; step < 25; ++step) {
    const std::string name = "expert-" + std::to_string(loop_->SimRandom() % 5);
    switch (loop_->SimRandom() % 4) {
      case 0:
        if (workers_.contains(name)) Kill(name);
        break;
      case 1:
        if (!workers_.contains(name)) Join(name);
        break;
      case 2: {
        if (!workers_.contains(name)) break;
        const NodeId node = workers_[name]->node.context.node;
        network_.Cut(node, kRouterNode);
        Run(Duration(1ms) * (loop_->SimRandom() % 2500));
        network_.Heal(node, kRouterNode);
        break;
      }
      case 3:
        KillRouter();
        Run(Duration(1ms) * (loop_->SimRandom() % 1500));
        StartRouter();
        break;
    }
    Run(Duration(1ms) * (loop_->SimRandom() % 400));
    if (testing::Test::HasFatalFailure()) return;
  }
  for (int i = 0; i < 5; ++i) {
    const std::string name = "expert-" + std::to_string(i);
    if (!workers_.contains(name)) Join(name);
  }
  Run(6s);
}

void World::ChaosThenWhole() {
  Chaos();
  EXPECT_EQ(LeastReplicas(), 2u);
  size_t held = 0;
  for (auto& [name, worker] : workers_) {
    held += worker->held.size();
    EXPECT_TRUE(worker->session->connected()) << name;
    EXPECT_EQ(worker->session->table()->epoch, router_->table()->epoch) << name;
  }
  EXPECT_EQ(held, 2u * 2 * kExperts);
  EXPECT_EQ(router_->table()->members.size(), 7u);
}

namespace {

class RouterTest : public testing::Test, protected World {
 protected:
  using World::Run;
};

TEST_F(RouterTest, WorkersThatStartTogetherShareTheExperts) {
  Join("attention-0", Role::kAttention);
  for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
  Join("gateway", Role::kGateway);
  Run(1s);
  ASSERT_NE(router_->table(), nullptr);
  EXPECT_EQ(LeastReplicas(), 2u);
  EXPECT_TRUE(EveryExpertHasAReplica(*router_->table()));
  EXPECT_TRUE(router_->ready());
  for (uint32_t expert = 0; expert < kExperts; ++expert) {
    EXPECT_TRUE(router_->table()->replicas[expert].empty()) << "a dense layer has no replicas";
  }
  for (int i = 0; i < 4; ++i) {
    FakeWorker& worker = *workers_["expert-" + std::to_string(i)];
    EXPECT_NEAR(static_cast<double>(worker.held.size()), 2 * 2 * kExperts / 4.0, 2);
    EXPECT_EQ(worker.assignments, 1) << "placed twice";
    EXPECT_EQ(InTable(worker.node.context.name)->state, MemberState::kActive);
  }
  for (auto& [name, worker] : workers_) {
    ASSERT_NE(worker->session->table(), nullptr) << name;
    EXPECT_EQ(worker->session->table()->epoch, router_->table()->epoch) << name;
  }
}

TEST_F(RouterTest, ADeadWorkerLeavesTheTableAtOnceAndItsExpertsMove) {
  FakeWorker& reader = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  const uint64_t before = router_->table()->epoch;
  Kill("expert-1");
  Run(300ms);  // stream end, 200 ms, no more
  EXPECT_EQ(InTable("expert-1"), nullptr);
  EXPECT_GT(router_->table()->epoch, before);
  EXPECT_GE(LeastReplicas(), 1u);
  EXPECT_TRUE(EveryExpertHasAReplica(*reader.session->table()));
  Run(1s);
  EXPECT_EQ(LeastReplicas(), 2u);
}

TEST_F(RouterTest, ASilentWorkerIsSuspectedThenBuried) {
  Join("attention-0", Role::kAttention);
  Join("expert-0");
  FakeWorker& stuck = Add("expert-1");
  stuck.Start();
  Run(1s);
  ASSERT_NE(InTable("expert-1"), nullptr);
  // Cut: nothing arrives, and the stream has not ended yet.
  network_.Cut(stuck.node.context.node, kRouterNode);
  Run(760ms);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kSuspect);
  Run(340ms);
  EXPECT_EQ(InTable("expert-1"), nullptr);
  network_.Heal(stuck.node.context.node, kRouterNode);
  Run(4s);
  ASSERT_NE(InTable("expert-1"), nullptr) << "it comes back by itself";
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kActive);
  EXPECT_EQ(LeastReplicas(), 2u);
}

// Out of the table as soon as an attention worker says that its answers are wrong; back after its
// time and a self-test. The reports that went on meanwhile are of the past.
TEST_F(RouterTest, AWorkerThatAnswersWronglyIsOutUntilItPassesItsSelfTest) {
  FakeWorker& reporter = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 3; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  FakeWorker& wrong = *workers_["expert-1"];
  const MemberId id = *wrong.session->id();
  reporter.bad = {{wrong.node.context.incarnation, "not_finite"}};
  const auto replicas = [&] {
    size_t of_it = 0;
    for (const auto& members : router_->table()->replicas) {
      of_it += std::find(members.begin(), members.end(), id) != members.end();
    }
    return of_it;
  };
  Run(600ms);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kQuarantined);
  EXPECT_EQ(replicas(), 0u);
  EXPECT_EQ(wrong.quarantines, 1);
  EXPECT_EQ(LeastReplicas(), 2u) << "its experts went elsewhere";
  Run(6s);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kQuarantined) << "no self-test yet";
  ++wrong.self_tests_passed;
  for (int i = 0; i < 500 && InTable("expert-1")->state == MemberState::kQuarantined; ++i) Run(1ms);
  reporter.bad.clear();  // as its dispatcher does once it reads the table
  Run(1s);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kActive);
  EXPECT_GT(replicas(), 0u);
  EXPECT_EQ(wrong.quarantines, 1);
}

// An attention worker that sees faults everywhere takes nobody's last replica away: who trusts the
// workers goes on, and they come back with their self-tests.
TEST_F(RouterTest, WorkersThatAreAllAccusedKeepTheirExperts) {
  FakeWorker& reporter = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 3; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  const auto all = [&](MemberState state) {
    for (int i = 0; i < 3; ++i) {
      if (InTable("expert-" + std::to_string(i))->state != state) return false;
    }
    return true;
  };
  for (int i = 0; i < 3; ++i) {
    reporter.bad.emplace_back(workers_["expert-" + std::to_string(i)]->node.context.incarnation,
                              "mismatch");
  }
  Run(2s);
  EXPECT_TRUE(all(MemberState::kQuarantined));
  EXPECT_TRUE(EveryExpertHasAReplica(*router_->table()));
  reporter.bad.clear();
  for (int i = 0; i < 3; ++i) ++workers_["expert-" + std::to_string(i)]->self_tests_passed;
  Run(5s);
  EXPECT_TRUE(all(MemberState::kActive));
  EXPECT_EQ(LeastReplicas(), 2u);
}

TEST_F(RouterTest, ACutThatHealsInTimeIsForgiven) {
  Join("expert-0");
  FakeWorker& worker = Join("expert-1");
  Run(1s);
  const int assignments = worker.assignments;
  network_.Cut(worker.node.context.node, kRouterNode);
  Run(800ms);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kSuspect);
  network_.Heal(worker.node.context.node, kRouterNode);
  Run(300ms);
  EXPECT_EQ(InTable("expert-1")->state, MemberState::kActive);
  EXPECT_EQ(worker.assignments, assignments);
}

TEST_F(RouterTest, AProcessWithoutProgressSendsNoHeartbeat) {
  Join("expert-0");
  FakeWorker& stuck = Add("expert-1");
  stuck.stuck = true;
  stuck.Start();
  Run(100ms);
  ASSERT_NE(InTable("expert-1"), nullptr);
  Run(1200ms);
  EXPECT_EQ(InTable("expert-1"), nullptr);
}

Task<void> DrainAndStop(FakeWorker* worker, absl::Status* out) {
  const Time deadline = worker->node.context.loop.Now() + 5s;
  *out = co_await worker->session->Drain(deadline);
  worker->session->Stop();
}

TEST_F(RouterTest, ADrainedWorkerLeavesWhenNothingPointsAtIt) {
  FakeWorker& reader = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 3; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  absl::Status drained = absl::UnknownError("");
  FakeWorker& leaving = *workers_["expert-1"];
  loop_->Spawn(leaving.node.context.node, DrainAndStop(&leaving, &drained));
  for (int i = 0; i < 1000 && !drained.ok(); ++i) {
    Run(1ms);
    EXPECT_EQ(LeastReplicas() >= 2, true) << "replication fell during a drain";
  }
  EXPECT_TRUE(drained.ok()) << drained;
  for (const auto& replicas : reader.session->table()->replicas) {
    for (MemberId id : replicas) EXPECT_NE(id, *leaving.session->id());
  }
  Run(200ms);
  EXPECT_EQ(InTable("expert-1"), nullptr);
}

Task<void> DrainOnly(FakeWorker* worker, absl::Status* out) {
  const Time deadline = worker->node.context.loop.Now() + 5s;
  *out = co_await worker->session->Drain(deadline);
}

// Everything was told to end at once, the router first.
TEST_F(RouterTest, ADrainWithoutARouterIsShort) {
  FakeWorker& leaving = Join("expert-0");
  Run(1s);
  KillRouter();
  Run(100ms);
  absl::Status drained = absl::OkStatus();
  loop_->Spawn(leaving.node.context.node, DrainOnly(&leaving, &drained));
  Run(2900ms);
  EXPECT_TRUE(drained.ok()) << "it may come back";
  Run(300ms);
  EXPECT_TRUE(absl::IsUnavailable(drained)) << drained;
}

TEST_F(RouterTest, AClusterThatShutsDownWaitsForNobody) {
  Join("attention-0", Role::kAttention);
  for (int i = 0; i < 3; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  std::map<std::string, absl::Status> drained;
  for (auto& [name, worker] : workers_) {
    drained[name] = absl::UnknownError("");
    loop_->Spawn(worker->node.context.node, DrainAndStop(worker.get(), &drained[name]));
  }
  Run(1s);
  for (auto& [name, status] : drained) EXPECT_TRUE(status.ok()) << name << status;
  EXPECT_TRUE(router_->table()->members.empty());
}

// Requests in progress need it, and it needs the table, after nobody sends it new ones.
TEST_F(RouterTest, ADrainedAttentionWorkerStaysUntilItCloses) {
  FakeWorker& gateway = Join("gateway", Role::kGateway);
  FakeWorker& leaving = Join("attention-0", Role::kAttention);
  Join("attention-1", Role::kAttention);
  Join("expert-0");
  Run(1s);
  absl::Status drained = absl::UnknownError("");
  loop_->Spawn(leaving.node.context.node, DrainOnly(&leaving, &drained));
  Run(300ms);
  EXPECT_TRUE(drained.ok()) << drained;
  const Member* seen = gateway.session->table()->Find(*leaving.session->id());
  ASSERT_NE(seen, nullptr);
  EXPECT_EQ(seen->state, MemberState::kDraining);
  Join("expert-1");
  Run(1s);
  EXPECT_EQ(leaving.session->table()->epoch, router_->table()->epoch) << "it still gets tables";
  leaving.session->Stop();
  Run(100ms);
  EXPECT_EQ(InTable("attention-0"), nullptr);
}

TEST_F(RouterTest, ALateJoinerTakesExpertsWithoutAGap) {
  Join("attention-0", Role::kAttention);
  for (int i = 0; i < 2; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  FakeWorker& late = Join("expert-2");
  for (int i = 0; i < 1500; ++i) {
    Run(1ms);
    ASSERT_GE(LeastReplicas(), 2u);
  }
  // 2 layers x 32 copies / 3 workers = 21.3; the others may stay a tenth above that.
  EXPECT_GE(late.held.size(), 16u);
  EXPECT_EQ(InTable("expert-2")->state, MemberState::kActive);
  size_t held = 0;
  for (auto& [name, worker] : workers_) held += worker->held.size();
  EXPECT_EQ(held, 2u * 2 * kExperts) << "moved experts were unloaded";
}

TEST_F(RouterTest, AJoinerGetsTheHotExpertOrItsShareOfTheColdOnes) {
  Join("attention-0", Role::kAttention);
  for (int i = 0; i < 3; ++i) {
    Join("expert-" + std::to_string(i)).hot = {.layer = LayerId{1}, .expert = ExpertId{3}};
  }
  Run(6s);
  FakeWorker& late = Join("expert-3");
  late.hot = {.layer = LayerId{1}, .expert = ExpertId{3}};
  Run(1s);
  for (uint16_t layer = 1; layer < kLayers; ++layer) {
    size_t held = 0;
    for (ExpertRef ref : late.held) held += ref.layer == LayerId{layer};
    // Of 2 * kExperts copies on 4 workers.
    EXPECT_TRUE(held >= kExperts / 4u || late.held.contains(late.hot)) << "layer " << layer;
  }
}

// The whole of W11's other half: measured load alone moves and replicates, by tables only.
Task<void> AskStatus(Loop* loop, Network* network, absl::StatusOr<internal::v1::StatusReply>* out) {
  StatusClient client(*loop, *network, NodeId{900}, kAddresses);
  *out = co_await client.Ask(1s);
  if (out->ok()) *out = co_await client.Ask(1s);  // over the same stream
}

TEST_F(RouterTest, StatusTellsTheRowsOfEachExpertOverAllReplicas) {
  Join("attention-0", Role::kAttention);
  for (const char* name : {"expert-0", "expert-1"}) {
    Join(name).hot = {.layer = LayerId{1}, .expert = ExpertId{3}};
  }
  Run(3s);  // past the first report of what they hold by then
  absl::StatusOr<internal::v1::StatusReply> reply = absl::UnknownError("");
  loop_->Spawn(NodeId{900}, AskStatus(loop_.get(), &network_, &reply));
  Run(100ms);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->router_name(), "router");
  ASSERT_EQ(reply->expert_rows_size(), static_cast<int>(kLayers * kExperts));
  for (int key = 0; key < reply->expert_rows_size(); ++key) {
    EXPECT_EQ(reply->expert_rows(key), key == kExperts + 3 ? 2000 : 0) << key;
  }
  KillRouter();
  loop_->Spawn(NodeId{900}, AskStatus(loop_.get(), &network_, &reply));
  Run(3s);
  EXPECT_TRUE(absl::IsUnavailable(reply.status())) << reply.status();
}

TEST_F(RouterTest, AHotExpertIsReplicatedWhileItServesAndTheReasonIsCounted) {
  FakeWorker& reader = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 4; ++i) {
    Join("expert-" + std::to_string(i)).hot = {.layer = LayerId{1}, .expert = ExpertId{3}};
  }
  Run(2s);
  const size_t hot = kExperts + 3;
  ASSERT_EQ(router_->table()->replicas[hot].size(), 2u);
  EXPECT_EQ(Moves("join", "loaded"), 2 * 2 * kExperts);
  Run(35s);  // past the rebalancer's interval
  EXPECT_GT(router_->table()->replicas[hot].size(), 2u);
  EXPECT_EQ(reader.session->table()->replicas, router_->table()->replicas);
  EXPECT_GE(LeastReplicas(), 2u);
  EXPECT_GT(Moves("load", "loaded"), 0);
  const double loads = Moves("load", "loaded");
  Run(120s);
  EXPECT_EQ(Moves("load", "loaded"), loads) << "the same load moves nothing more";
  Kill("expert-2");
  Run(2s);
  EXPECT_GT(Moves("death", "loaded"), 0);
  EXPECT_GT(Moves("death", "unloaded") + Moves("load", "unloaded") + Moves("join", "unloaded"), 0);
}

TEST_F(RouterTest, ANewRouterRebuildsTheTableFromItsMembers) {
  FakeWorker& reader = Join("attention-0", Role::kAttention);
  for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  const TableSnapshot old = router_->table();
  std::map<std::string, int> assignments;
  for (auto& [name, worker] : workers_) assignments[name] = worker->assignments;

  KillRouter();
  Run(500ms);
  EXPECT_EQ(reader.session->table()->replicas, old->replicas) << "the last table stays in use";
  StartRouter();
  for (int i = 0; i < 2000; ++i) {
    Run(1ms);
    // At no moment does the reader lose an expert or a member that it had.
    ASSERT_TRUE(EveryExpertHasAReplica(*reader.session->table()));
    ASSERT_EQ(reader.session->table()->members.size(), old->members.size());
  }
  const TableSnapshot rebuilt = router_->table();
  EXPECT_GT(rebuilt->term, old->term);
  EXPECT_GT(rebuilt->epoch, old->epoch);
  EXPECT_EQ(reader.session->table()->epoch, rebuilt->epoch);
  EXPECT_EQ(rebuilt->replicas, old->replicas) << "nothing moves";
  for (auto& [name, worker] : workers_) {
    EXPECT_EQ(worker->assignments, assignments[name]) << name << " was told to load again";
    EXPECT_EQ(InTable(name)->id, *worker->session->id());
  }
}

TEST_F(RouterTest, ARouterWithAClockThatWentBackStillWritesAboveTheOldTable) {
  FakeWorker& reader = Join("attention-0", Role::kAttention);
  term_ = 100;
  Join("expert-0");
  Join("expert-1");
  Run(500ms);
  KillRouter();
  term_ = 100;
  StartRouter();  // 101
  Run(3s);
  EXPECT_EQ(reader.session->table()->term, 101u);
  KillRouter();
  term_ = 50;
  StartRouter();
  Run(4s);
  EXPECT_GT(reader.session->table()->term, 101u);
  EXPECT_TRUE(EveryExpertHasAReplica(*reader.session->table()));
}

// What its callbacks point at goes with it; the stream's task may still be waiting.
TEST_F(RouterTest, ADestroyedSessionCallsNothing) {
  FakeWorker& worker = Join("expert-0");
  Run(500ms);
  const size_t tables = worker.tables.size();
  worker.session.reset();
  Join("expert-1");
  Run(500ms);
  EXPECT_EQ(worker.tables.size(), tables);
}

TEST_F(RouterTest, D9_AnotherModelIsRefused) {
  Join("expert-0");
  Run(100ms);
  FakeWorker& other = Add("expert-1");
  other.Start("another digest");
  Run(500ms);
  EXPECT_EQ(ReasonOf(other.refused), Reason::kModelRefused) << other.refused;
  EXPECT_EQ(InTable("expert-1"), nullptr);
  EXPECT_EQ(MemberChanges(Role::kExpert, "refused"), 1);
}

TEST_F(RouterTest, OtherNumericsOrProtocolsAreRefused) {
  Join("expert-0");
  Run(100ms);
  FakeWorker& numerics = Add("expert-1");
  numerics.self.member.numerics_id = "n2";
  numerics.Start();
  FakeWorker& newer = Add("attention-0", Role::kAttention);
  newer.self.member.protocol_min = newer.self.member.protocol_max = kProtocol + 1;
  newer.Start();
  FakeWorker& both = Add("attention-1", Role::kAttention);
  both.self.member.protocol_max = kProtocol + 1;
  both.Start();
  Run(500ms);
  EXPECT_EQ(ReasonOf(numerics.refused), Reason::kModelRefused) << numerics.refused;
  EXPECT_EQ(ReasonOf(newer.refused), Reason::kModelRefused) << newer.refused;
  EXPECT_TRUE(both.refused.ok()) << "it speaks ours too";
  EXPECT_NE(InTable("attention-1"), nullptr);
  EXPECT_EQ(router_->table()->members.size(), 2u);
  EXPECT_EQ(MemberChanges(Role::kExpert, "refused"), 1);
  EXPECT_EQ(MemberChanges(Role::kAttention, "refused"), 1);
}

TEST_F(RouterTest, S13_ARestartedProcessTakesItsNameOver) {
  Join("expert-0");
  Join("expert-1");
  Run(1s);
  const MemberId id = InTable("expert-1")->id;
  const Incarnation first = InTable("expert-1")->incarnation;
  std::unique_ptr<FakeWorker> old = std::move(workers_["expert-1"]);
  FakeWorker& second = Join("expert-1");
  Run(1s);
  EXPECT_EQ(InTable("expert-1")->id, id);
  EXPECT_GT(InTable("expert-1")->incarnation, first);
  EXPECT_EQ(*second.session->id(), id);
  EXPECT_FALSE(old->refused.ok()) << "the older process was not told";
  EXPECT_FALSE(old->session->connected());
  EXPECT_EQ(LeastReplicas(), 2u);
  EXPECT_EQ(MemberChanges(Role::kExpert, "replaced"), 1) << "the alarm";
  // The older one's registration, sent once more.
  FakeWorker replayed(*loop_, network_, faults_, NodeId{50}, Role::kExpert, first.value,
                      "expert-1");
  replayed.Start();
  Run(300ms);
  EXPECT_TRUE(absl::IsAlreadyExists(replayed.refused)) << replayed.refused;
  EXPECT_GT(InTable("expert-1")->incarnation, first);
  EXPECT_EQ(MemberChanges(Role::kExpert, "refused"), 1);
  network_.Kill(NodeId{50});
  network_.Kill(old->node.context.node);
}

// It died, its host's clock was set back, and it is here again before it was buried.
TEST_F(RouterTest, AProcessOfAnEarlierWallClockComesBack) {
  Join("attention-0", Role::kAttention);
  FakeWorker& dead = Join("expert-0");
  Run(1s);
  const Incarnation first = dead.node.context.incarnation;
  FakeWorker back(*loop_, network_, faults_, NodeId{50}, Role::kExpert, first.value - 1,
                  "expert-0");
  Kill("expert-0");
  Run(20ms);
  ASSERT_NE(InTable("expert-0"), nullptr) << "not buried yet";
  back.Start();
  Run(1s);
  EXPECT_TRUE(back.refused.ok()) << back.refused;
  ASSERT_NE(InTable("expert-0"), nullptr);
  EXPECT_EQ(InTable("expert-0")->incarnation.value, first.value - 1);
  EXPECT_EQ(InTable("expert-0")->state, MemberState::kActive);
  network_.Kill(NodeId{50});
}

TEST_F(RouterTest, ReplicationFollowsWhatFits) {
  for (int i = 0; i < 2; ++i) {
    FakeWorker& worker = Add("expert-" + std::to_string(i));
    worker.Start("digest", 20);  // 40 places for 32 experts, 64 wanted
  }
  Run(1s);
  EXPECT_EQ(LeastReplicas(), 1u);
  EXPECT_TRUE(EveryExpertHasAReplica(*router_->table()));
}

TEST_F(RouterTest, AllWorkersAtOnceComeBackWithoutLoadingTwice) {
  Join("attention-0", Role::kAttention);
  for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  for (int i = 0; i < 4; ++i) Kill("expert-" + std::to_string(i));
  Run(400ms);
  EXPECT_EQ(LeastReplicas(), 0u);
  for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
  Run(1s);
  EXPECT_EQ(LeastReplicas(), 2u);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(workers_["expert-" + std::to_string(i)]->assignments, 1);
  }
}

class RouterChaosTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Seeds, RouterChaosTest, testing::Range(0, 20));

TEST_P(RouterChaosTest, HealsAfterAnything) { World(GetParam()).ChaosThenWhole(); }

TEST(RouterChaos, ASeedIsAHistory) {
  const auto hash = [](uint64_t seed) {
    World world(seed);
    world.Chaos();
    return world.loop_->trace_hash();
  };
  EXPECT_EQ(hash(5), hash(5));
  EXPECT_NE(hash(5), hash(6));
}

}  // namespace
}  // namespace bottega
