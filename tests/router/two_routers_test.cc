// Two routers and a lease: who writes, who is refused, and what members read meanwhile.
#include <gtest/gtest.h>

#include "router/background/liveness_checker.h"
#include "router/ops/register.h"
#include "router/state.h"
#include "router/table_writer.h"
#include "tests/router/router_world.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;

class TwoRoutersTest : public testing::Test, protected World {
 protected:
  TwoRoutersTest() : World(3, 2) {}
  using World::Run;

  void JoinAll() {
    reader_ = &Join("attention-0", Role::kAttention);
    for (int i = 0; i < 4; ++i) Join("expert-" + std::to_string(i));
    Run(1s);
  }
  // Nobody else can reach it, nor can it reach the lease.
  void Isolate(NodeId node, bool cut) {
    lease_.reachable[node == kRouterNode ? 0 : 1] = !cut;
    for (auto& [name, worker] : workers_) {
      const NodeId other = worker->node.context.node;
      cut ? network_.Cut(node, other) : network_.Heal(node, other);
      cut ? network_.Cut(other, node) : network_.Heal(other, node);
    }
  }
  double IsLeader(Node& node) {
    for (const auto& family : node.registry.Collect()) {
      if (family.name == "bottega_router_is_leader") return family.metric[0].gauge.value;
    }
    return -1;
  }
  // For so long as the readers' table names everybody and every expert.
  void RunWhole(Duration d) {
    const TableSnapshot before = reader_->session->table();
    for (Duration t{}; t < d; t += 1ms) {
      Run(1ms);
      const TableSnapshot now = reader_->session->table();
      ASSERT_TRUE(EveryExpertHasAReplica(*now));
      ASSERT_EQ(now->members.size(), before->members.size());
      ASSERT_FALSE(router_ != nullptr && router_->writes() && second_->writes());
    }
  }
  FakeWorker* reader_ = nullptr;
};

TEST_F(TwoRoutersTest, OneWritesAndTheOtherSendsMembersToIt) {
  JoinAll();
  EXPECT_TRUE(router_->writes());
  EXPECT_FALSE(second_->writes());
  EXPECT_TRUE(second_->ready()) << "a standby is ready to follow";
  EXPECT_EQ(second_->table(), nullptr);
  EXPECT_EQ(IsLeader(*router_node_), 1);
  EXPECT_EQ(IsLeader(*second_node_), 0);
  EXPECT_EQ(LeastReplicas(), 2u);
}

TEST_F(TwoRoutersTest, TheStandbyFollowsAWriterThatDied) {
  JoinAll();
  const TableSnapshot before = reader_->session->table();
  KillRouter();
  RunWhole(6s);
  EXPECT_TRUE(second_->writes());
  const TableSnapshot after = reader_->session->table();
  EXPECT_GT(after->term, before->term);
  EXPECT_GT(after->epoch, before->epoch);
  EXPECT_EQ(after->replicas, before->replicas) << "nothing moves";
  for (auto& [name, worker] : workers_) EXPECT_TRUE(worker->session->connected()) << name;
  StartRouter();
  Run(1s);
  EXPECT_FALSE(router_->writes()) << "it stands by now";
}

TEST_F(TwoRoutersTest, AWriterThatIsCutOffStepsDownBeforeTheNextWrites) {
  JoinAll();
  const uint64_t term = router_->table()->term;
  Isolate(kRouterNode, true);
  RunWhole(6s);  // never two
  EXPECT_FALSE(router_->writes());
  EXPECT_EQ(router_->table(), nullptr) << "it serves nothing stale";
  EXPECT_EQ(IsLeader(*router_node_), 0);
  EXPECT_TRUE(second_->writes());
  EXPECT_GT(reader_->session->table()->term, term);
  Isolate(kRouterNode, false);
  RunWhole(3s);
  EXPECT_TRUE(second_->writes());
  EXPECT_EQ(LeastReplicas(second_->table()), 2u);
}

TEST_F(TwoRoutersTest, WhoJoinsOrDiesWhileNobodyWritesIsSeenAfterwards) {
  JoinAll();
  const uint64_t epoch = reader_->session->table()->epoch;
  KillRouter();
  Run(200ms);  // the lease is still the dead one's
  ASSERT_FALSE(second_->writes());
  Kill("expert-1");
  FakeWorker& joined = Join("expert-9");
  Run(8s);
  ASSERT_TRUE(second_->writes());
  const TableSnapshot table = reader_->session->table();
  EXPECT_GT(table->epoch, epoch);
  for (const Member& member : table->members) EXPECT_NE(member.name, "expert-1");
  EXPECT_EQ(LeastReplicas(table), 2u);
  EXPECT_GT(joined.held.size(), 0u);
}

Task<void> DrainRouter(RouterServer* router, Loop* loop, absl::Status* out) {
  const Time deadline = loop->Now() + 5s;
  *out = co_await router->Drain(deadline);
}

TEST_F(TwoRoutersTest, AWriterThatDrainsHandsOverAtOnce) {
  JoinAll();
  absl::Status drained = absl::UnknownError("");
  loop_->Spawn(NodeId{99}, DrainRouter(router_.get(), loop_.get(), &drained));
  RunWhole(400ms);
  EXPECT_TRUE(drained.ok()) << drained;
  EXPECT_TRUE(second_->writes());
}

TEST_F(TwoRoutersTest, ALostStoreCannotPutTheTermBack) {
  JoinAll();
  lease_.term = 100;
  KillRouter();
  RunWhole(5s);
  ASSERT_EQ(reader_->session->table()->term, 101u);
  network_.Kill(kSecondRouterNode);
  second_.reset();
  lease_ = LeaseStore{};
  StartSecond();
  RunWhole(5s);
  EXPECT_GT(reader_->session->table()->term, 101u);
  EXPECT_TRUE(reader_->session->connected());
}

// What SIGSTOP does to a process: its clock has gone on when it does anything again.
TEST(RouterThatStoodStill, JudgesNobodyAndWritesNothing) {
  auto loop = Loop::Simulated(1);
  LocalNetwork network(*loop);
  FaultPoints faults;
  Node node(*loop, network, faults, NodeId{1}, Role::kRouter, 1, "router");
  router::Metrics metrics(node.registry);
  router::RouterState state(node.context, {}, metrics, /*term=*/7);
  router::MemberRecord& record = state.members[MemberId{1}];
  record.member.id = MemberId{1};
  record.member.name = "attention-0";
  record.member.role = Role::kAttention;
  record.signs.last_heartbeat = loop->Now();
  router::WriteTable(state);
  const TableSnapshot before = state.table;
  ASSERT_NE(before, nullptr);

  state.awake_until = loop->Now() + 500ms;
  loop->RunUntil(loop->Now() + 5s);  // nobody turned meanwhile
  router::JudgeMembers(state);
  EXPECT_TRUE(state.members.contains(MemberId{1})) << "silence it slept through proves nothing";
  record.member.control_address = "changed";
  router::WriteTable(state);
  EXPECT_EQ(state.table, before);
  internal::v1::Register request;
  absl::StatusOr<MemberId> id = router::Register(state, request, nullptr);
  EXPECT_TRUE(absl::IsUnavailable(id.status())) << id.status();
}

}  // namespace
}  // namespace bottega
