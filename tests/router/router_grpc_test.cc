// The router and its members over real connections and the real clock.
#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "core/service/grpc_network.h"
#include "core/service/router_session.h"
#include "router/router_server.h"

namespace bottega {
namespace {

using namespace std::chrono_literals;

struct Process {
  Process(Loop& loop, NodeId node, Role role, std::string name)
      : network(loop),
        context{.loop = loop,
                .node = node,
                .network = network,
                .metrics = registry,
                .faults = faults,
                .role = role,
                .incarnation = NewIncarnation(),
                .name = name,
                .log = Logger("", name)} {}
  prometheus::Registry registry;
  FaultPoints faults;
  GrpcNetwork network;
  ServiceContext context;
};

struct Worker {
  Worker(Loop& loop, NodeId node, Role role, std::string name, std::string router)
      : process(loop, node, role, name) {
    MemberSelf self;
    self.member.role = role;
    self.model_digest = "digest";
    self.layers = 2;
    self.experts = 8;
    RouterSession::Callbacks callbacks;
    if (role == Role::kExpert) {
      callbacks.on_assignment = [this](std::vector<ExpertRef> experts) {
        session->SetHeld(std::move(experts));
      };
    }
    session = std::make_unique<RouterSession>(process.context, self,
                                              RouterSessionOptions{.router_address = router},
                                              std::move(callbacks));
    session->Start();
  }
  Process process;
  std::unique_ptr<RouterSession> session;
};

// Turns the loop until `done`; a hang limit, not a measurement.
Task<void> StopWhen(Loop* loop, const std::function<bool()>* done, bool* ok) {
  const Time end = loop->Now() + 30s;
  while (!(*done)() && loop->Now() < end) co_await loop->Sleep(2ms);
  *ok = (*done)();
  loop->Stop();
}

TEST(RouterOverGrpc, JoinDeathAndRestart) {
  std::string log;
  CaptureLog(&log);
  auto loop = Loop::Real();
  const auto until = [&](std::function<bool()> done) {
    bool ok = false;
    loop->Spawn(NodeId{99}, StopWhen(loop.get(), &done, &ok));
    loop->Run();
    return ok;
  };
  auto router_process = std::make_unique<Process>(*loop, NodeId{1}, Role::kRouter, "router");
  RouterConfig config;
  config.replication = 2;
  auto router = std::make_unique<RouterServer>(router_process->context, config);
  ASSERT_TRUE(router->Start().ok());
  const std::string address = router->address();

  Worker reader(*loop, NodeId{2}, Role::kAttention, "attention-0", address);
  std::vector<std::unique_ptr<Worker>> experts;
  for (uint32_t i = 0; i < 3; ++i) {
    experts.push_back(std::make_unique<Worker>(*loop, NodeId{10 + i}, Role::kExpert,
                                               "expert-" + std::to_string(i), address));
  }
  const auto replicas = [&] {
    TableSnapshot table = reader.session->table();
    size_t least = SIZE_MAX;
    for (const auto& ids :
         table != nullptr ? table->replicas : std::vector<std::vector<MemberId>>(1)) {
      least = std::min(least, ids.size());
    }
    return least == SIZE_MAX ? 0 : least;
  };
  const auto members = [&] {
    return reader.session->table() == nullptr ? 0 : reader.session->table()->members.size();
  };
  ASSERT_TRUE(until([&] { return members() == 4 && replicas() == 2; })) << log;

  // One expert worker dies: its connection breaks.
  loop->Kill(NodeId{11});
  experts[1]->process.network.Shutdown(NodeId{11});
  ASSERT_TRUE(until([&] { return members() == 3 && replicas() == 2; })) << log;

  // The router is started again at the same address.
  const TableSnapshot before = reader.session->table();
  router->Stop();
  loop->Kill(NodeId{1});
  router.reset();
  router_process.reset();
  EXPECT_EQ(reader.session->table(), before);
  router_process = std::make_unique<Process>(*loop, NodeId{1}, Role::kRouter, "router");
  config.listen = address;
  router = std::make_unique<RouterServer>(router_process->context, config);
  absl::Status started = router->Start();
  ASSERT_TRUE(started.ok()) << started;
  ASSERT_TRUE(until([&] {
    return reader.session->table()->term > before->term && members() == 3 && replicas() == 2;
  })) << log;
  EXPECT_GT(reader.session->table()->epoch, before->epoch);

  for (uint32_t node = 0; node < 100; ++node) loop->Kill(NodeId{node});
  CaptureLog(nullptr);
}

}  // namespace
}  // namespace bottega
