// The rules of a move, one by one, on a state made by hand.
#include "router/table_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "core/service/local_network.h"

namespace bottega::router {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr MemberId kA{1}, kB{2}, kReader{9};

struct TableWriterTest : testing::Test {
  TableWriterTest() {
    state.layers = 1;
    state.experts = 2;
    state.model_digest = "d";
    state.epoch = 5;
    for (MemberId id : {kA, kB}) {
      MemberRecord& record = state.members[id];
      record.member.id = id;
      record.member.role = Role::kExpert;
      record.capacity = 2;
      record.held = {false, false};
      record.assigned = {false, false};
    }
    MemberRecord& reader = state.members[kReader];
    reader.member.id = kReader;
    reader.member.role = Role::kAttention;
    reader.acked_epoch = 5;
  }
  MemberRecord& member(MemberId id) { return state.members[id]; }
  std::vector<MemberId> Replicas(ExpertKey key) { return MakeTable(state).replicas[key]; }
  void SetTable(std::vector<std::vector<MemberId>> replicas) {
    ClusterTable table = MakeTable(state);
    table.replicas = std::move(replicas);
    state.table = std::make_shared<const ClusterTable>(std::move(table));
  }

  std::unique_ptr<Loop> loop = Loop::Simulated(1);
  LocalNetwork network{*loop};
  FaultPoints faults;
  prometheus::Registry registry;
  ServiceContext context{.loop = *loop,
                         .node = NodeId{1},
                         .network = network,
                         .metrics = registry,
                         .faults = faults,
                         .role = Role::kRouter,
                         .incarnation = Incarnation{1},
                         .name = "router",
                         .log = {}};
  Metrics metrics{registry};
  RouterState state{context, {}, metrics, /*term=*/1};
};

TEST_F(TableWriterTest, AReplicaIsInTheTableOnceItIsHeld) {
  state.wanted = {{kA}, {kB}};
  member(kA).assigned = {true, false};
  EXPECT_THAT(Replicas(0), IsEmpty());
  member(kA).held = {true, false};
  EXPECT_THAT(Replicas(0), ElementsAre(kA));
}

TEST_F(TableWriterTest, TheOldReplicaServesUntilAllWantedOnesAreReady) {
  state.wanted = {{kB}, {kB}};
  member(kA).held = member(kA).assigned = {true, true};
  member(kB).assigned = {true, true};
  EXPECT_THAT(Replicas(0), ElementsAre(kA));
  member(kB).held = {true, false};
  EXPECT_THAT(Replicas(0), ElementsAre(kB));
  EXPECT_THAT(Replicas(1), ElementsAre(kA));
}

TEST_F(TableWriterTest, NobodyIsPointedAtForWhatItWasToldToLetGo) {
  state.wanted = {{kB}, {kB}};
  member(kA).held = {true, true};       // it has not said yet that it let go
  member(kA).assigned = {false, true};  // but was told to, for expert 0
  member(kB).assigned = {true, true};
  EXPECT_THAT(Replicas(0), IsEmpty());
  EXPECT_THAT(Replicas(1), ElementsAre(kA));
}

TEST_F(TableWriterTest, BeforeAnyPlacementWhatIsHeldServes) {
  member(kA).held = member(kA).assigned = {true, false};
  member(kB).held = member(kB).assigned = {true, true};
  EXPECT_THAT(Replicas(0), ElementsAre(kA, kB));
  EXPECT_THAT(Replicas(1), ElementsAre(kB));
}

TEST_F(TableWriterTest, AWorkerKeepsWhatTheTableStillShows) {
  state.wanted = {{kB}, {kB}};
  SetTable({{kA}, {}});
  EXPECT_THAT(MakeAssignment(state, kA), ElementsAre(true, false));
  EXPECT_THAT(MakeAssignment(state, kB), ElementsAre(true, true));
}

TEST_F(TableWriterTest, AWorkerKeepsWhatSomeReaderMayStillUse) {
  state.wanted = {{kB}, {kB}};
  SetTable({{kB}, {kB}});
  state.epoch = 6;
  state.retiring[{0, kA}] = 6;  // the table of epoch 6 is the first without it
  EXPECT_THAT(MakeAssignment(state, kA), ElementsAre(true, false));
  member(kReader).acked_epoch = 6;
  EXPECT_THAT(MakeAssignment(state, kA), ElementsAre(false, false));
  member(kReader).acked_epoch = 0;  // came back with a table of an older term
  EXPECT_THAT(MakeAssignment(state, kA), ElementsAre(true, false));
}

TEST_F(TableWriterTest, AnEpochIsWrittenOnlyForAChange) {
  state.wanted = {{kA}, {kB}};
  member(kA).held = member(kA).assigned = {true, false};
  member(kB).held = member(kB).assigned = {false, true};
  WriteTable(state);
  EXPECT_EQ(state.table->epoch, 6u);
  WriteTable(state);
  EXPECT_EQ(state.table->epoch, 6u);
  member(kB).member.state = MemberState::kSuspect;
  WriteTable(state);
  EXPECT_EQ(state.table->epoch, 7u);
  EXPECT_THAT(state.table->replicas[1], ElementsAre(kB)) << "a suspect is still shown";
}

TEST_F(TableWriterTest, ADenseLayerHasNoReplicas) {
  state.dense_layers = {true};
  member(kA).held = member(kA).assigned = {true, true};
  EXPECT_THAT(Replicas(0), IsEmpty());
  EXPECT_THAT(MakeTable(state).dense_layers, ElementsAre(0u));
}

}  // namespace
}  // namespace bottega::router
