#pragma once

#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/service/local_network.h"
#include "core/service/router_session.h"
#include "router/metrics.h"
#include "router/router_server.h"

// Routers with members that are only sessions, in one thread, on a virtual clock.
namespace bottega {

using namespace std::chrono_literals;

constexpr uint32_t kLayers = 3;  // layer 0 is dense
constexpr uint32_t kExperts = 16;
constexpr NodeId kRouterNode{1};  // of the first router
constexpr NodeId kSecondRouterNode{2};
constexpr char kAddress[] = "router";  // of the first; of both: kAddresses
constexpr char kSecondAddress[] = "router-1";
constexpr char kAddresses[] = "router,router-1";

struct Node {
  Node(Loop& loop, Network& network, FaultPoints& faults, NodeId id, Role role,
       uint64_t incarnation, std::string name)
      : context{.loop = loop,
                .node = id,
                .network = network,
                .metrics = registry,
                .faults = faults,
                .role = role,
                .incarnation = Incarnation{incarnation},
                .name = name,
                .log = Logger("", name)} {}
  prometheus::Registry registry;
  ServiceContext context;
};

// An expert worker without experts: loads what it is told after a while, unloads at once, and
// remembers whether it was ever pointed at for something it had let go.
struct FakeWorker {
  FakeWorker(Loop& loop, Network& network, FaultPoints& faults, NodeId id, Role role,
             uint64_t incarnation, std::string name)
      : node(loop, network, faults, id, role, incarnation, std::move(name)) {}

  void Start(std::string digest = "digest", uint64_t capacity = kLayers * kExperts) {
    self.member.role = node.context.role;
    self.member.control_address = node.context.name + ":1";
    if (self.member.numerics_id.empty()) self.member.numerics_id = "n1";
    self.model_digest = node.context.role == Role::kGateway ? "" : digest;
    self.layers = kLayers;
    self.experts = kExperts;
    self.dense_layers = {true, false, false};
    self.expert_bytes = 100;
    self.capacity_bytes = capacity * 100;
    RouterSession::Callbacks callbacks;
    callbacks.on_table = [this](TableSnapshot table) { tables.push_back(table); };
    callbacks.on_refused = [this](absl::Status why) { refused = why; };
    if (node.context.role == Role::kExpert) {
      callbacks.expert_load = [this](const std::vector<ExpertRef>& told) {
        std::vector<float> rows(told.size());
        for (size_t i = 0; i < told.size(); ++i) rows[i] = told[i] == hot ? 1000.f : 0.f;
        return rows;
      };
      callbacks.on_assignment = [this](std::vector<ExpertRef> experts) {
        assigned.assign(experts.begin(), experts.end());
        ++assignments;
        node.context.loop.Spawn(node.context.node, Load(this, assignments));
      };
    }
    if (node.context.role == Role::kAttention) callbacks.bad_workers = [this] { return bad; };
    callbacks.on_quarantine = [this] { ++quarantines; };
    callbacks.self_tests_passed = [this] { return self_tests_passed; };
    if (stuck) callbacks.progress = [] { return 0; };
    session = std::make_unique<RouterSession>(
        node.context, self, RouterSessionOptions{.router_address = kAddresses}, callbacks);
    session->SetHeld(std::vector<ExpertRef>(held.begin(), held.end()));
    session->Start();
  }

  static Task<void> Load(FakeWorker* self, int assignment) {
    // Unload first: a real worker does, for memory.
    std::erase_if(self->held, [&](ExpertRef e) {
      return std::find(self->assigned.begin(), self->assigned.end(), e) == self->assigned.end();
    });
    self->session->SetHeld({self->held.begin(), self->held.end()});
    co_await self->node.context.loop.Sleep(self->load_time);
    if (assignment != self->assignments) co_return;
    self->held = {self->assigned.begin(), self->assigned.end()};
    self->session->SetHeld({self->held.begin(), self->held.end()});
  }

  Node node;
  MemberSelf self;  // what a test changes before Start stays
  std::unique_ptr<RouterSession> session;
  std::vector<TableSnapshot> tables;
  std::vector<ExpertRef> assigned;
  std::set<ExpertRef> held;
  int assignments = 0;
  Duration load_time = 20ms;
  bool stuck = false;
  std::vector<std::pair<Incarnation, std::string>> bad;  // as this attention worker reports
  int quarantines = 0;
  uint64_t self_tests_passed = 0;
  ExpertRef hot{LayerId{99}, ExpertId{0}};  // the one expert that is asked for
  absl::Status refused;
};

// A lease that the routers of one world share; `reachable` is each router's way to it.
struct LeaseStore {
  uint64_t term = 0;
  size_t holder = SIZE_MAX;
  Time until{};
  bool reachable[2] = {true, true};
};

class StoredLease final : public Lease {
 public:
  static constexpr Duration kTtl = 2s;
  StoredLease(Loop& loop, LeaseStore& store, size_t self)
      : loop_(loop), store_(store), self_(self) {}

  Task<absl::StatusOr<std::optional<uint64_t>>> TryAcquire(uint64_t above) override {
    if (!store_.reachable[self_]) co_return absl::UnavailableError("cut");
    if (store_.holder != SIZE_MAX && loop_.Now() < store_.until) {
      co_return std::optional<uint64_t>();
    }
    store_.term = std::max(store_.term, above) + 1;
    store_.holder = self_;
    store_.until = loop_.Now() + kTtl;
    co_return std::optional<uint64_t>(store_.term);
  }
  Task<absl::Status> Renew() override {
    if (!store_.reachable[self_]) co_return absl::UnavailableError("cut");
    if (store_.holder != self_) co_return absl::AbortedError("another's");
    store_.until = loop_.Now() + kTtl;
    co_return absl::OkStatus();
  }
  Task<void> Release() override {
    if (store_.reachable[self_] && store_.holder == self_) store_.holder = SIZE_MAX;
    co_return;
  }

 private:
  Loop& loop_;
  LeaseStore& store_;
  const size_t self_;
};

// A cluster of one router, or two with a lease, and sessions.
struct World {
  explicit World(uint64_t seed = 3, size_t routers = 1)
      : loop_(Loop::Simulated(seed)), routers_(routers) {
    CaptureLog(&log_);
    StartRouter();
    if (routers_ == 2) StartSecond();
  }
  ~World() {
    for (auto& [name, worker] : workers_) network_.Kill(worker->node.context.node);
    network_.Kill(kRouterNode);
    network_.Kill(kSecondRouterNode);
    workers_.clear();
    router_.reset();
    second_.reset();
    CaptureLog(nullptr);
    if (testing::Test::HasFailure()) std::cerr << log_;
  }

  std::unique_ptr<RouterServer> MakeRouter(Node& node, const char* address,
                                           std::unique_ptr<Lease> lease) {
    RouterConfig config;
    config.listen = address;
    config.replication = replication_;
    auto router = std::make_unique<RouterServer>(node.context, config, std::move(lease));
    EXPECT_TRUE(router->Start().ok());
    return router;
  }
  void StartRouter() {
    router_node_ = std::make_unique<Node>(*loop_, network_, faults_, kRouterNode, Role::kRouter,
                                          ++incarnation_, "router");
    router_ = MakeRouter(
        *router_node_, kAddress,
        routers_ == 1 ? SoleLease(++term_) : std::make_unique<StoredLease>(*loop_, lease_, 0));
  }
  void StartSecond() {
    second_node_ = std::make_unique<Node>(*loop_, network_, faults_, kSecondRouterNode,
                                          Role::kRouter, ++incarnation_, "router-1");
    second_ =
        MakeRouter(*second_node_, kSecondAddress, std::make_unique<StoredLease>(*loop_, lease_, 1));
  }
  void KillRouter() {
    network_.Kill(kRouterNode);
    router_.reset();
  }

  FakeWorker& Add(const std::string& name, Role role = Role::kExpert) {
    auto worker = std::make_unique<FakeWorker>(*loop_, network_, faults_, NodeId{++next_node_},
                                               role, ++incarnation_, name);
    FakeWorker& added = *worker;
    workers_[name] = std::move(worker);
    return added;
  }
  FakeWorker& Join(const std::string& name, Role role = Role::kExpert) {
    FakeWorker& worker = Add(name, role);
    worker.Start();
    return worker;
  }
  void Kill(const std::string& name) {
    network_.Kill(workers_[name]->node.context.node);
    workers_.erase(name);
  }
  // Deaths, joins, cuts and router restarts at random; then quiet for a while.
  void Chaos();
  void ChaosThenWhole();
  void Run(Duration d) {
    const Time end = loop_->Now() + d;
    while (loop_->Now() < end) {
      loop_->RunUntil(std::min(end, loop_->Now() + 1ms));
      CheckEveryReplicaIsHeld();
    }
  }
  // A table that any reader may still use never points at a worker that has let go: the latest
  // table of each attention worker.
  void CheckEveryReplicaIsHeld() {
    for (auto& [name, reader] : workers_) {
      if (reader->node.context.role != Role::kAttention || reader->session == nullptr) continue;
      TableSnapshot table = reader->session->table();
      if (table == nullptr) continue;
      for (size_t key = 0; key < table->replicas.size(); ++key) {
        const ExpertRef expert{LayerId{static_cast<uint16_t>(key / kExperts)},
                               ExpertId{static_cast<uint16_t>(key % kExperts)}};
        for (MemberId id : table->replicas[key]) {
          const Member* member = table->Find(id);
          ASSERT_NE(member, nullptr);
          auto worker = workers_.find(member->name);
          if (worker == workers_.end() ||
              worker->second->node.context.incarnation != member->incarnation) {
            continue;  // dead, the table will say so
          }
          ASSERT_TRUE(worker->second->held.contains(expert))
              << name << " is pointed at " << member->name << " for a lost expert";
        }
      }
    }
  }
  double MemberChanges(Role role, const char* change) {
    return router::Metrics(router_node_->registry).MemberChanges(role, change);
  }
  double Moves(const char* reason, const char* outcome) {
    for (const auto& family : router_node_->registry.Collect()) {
      if (family.name != "bottega_router_expert_moves_total") continue;
      for (const auto& metric : family.metric) {
        size_t same = 0;
        for (const auto& label : metric.label)
          same += label.value == reason || label.value == outcome;
        if (same == 2) return metric.counter.value;
      }
    }
    return 0;
  }
  size_t LeastReplicas() { return LeastReplicas(router_->table()); }
  static size_t LeastReplicas(const TableSnapshot& table) {
    if (table == nullptr) return 0;
    size_t least = SIZE_MAX;
    for (size_t key = kExperts; key < table->replicas.size(); ++key) {
      least = std::min(least, table->replicas[key].size());
    }
    return least == SIZE_MAX ? 0 : least;
  }
  const Member* InTable(const std::string& name) {
    if (router_->table() == nullptr) return nullptr;
    for (const Member& member : router_->table()->members) {
      if (member.name == name) return &member;
    }
    return nullptr;
  }

  std::string log_;
  std::unique_ptr<Loop> loop_;
  LocalNetwork network_{*loop_, SeededFaults(*loop_, {})};
  FaultPoints faults_;
  uint32_t replication_ = 2;
  uint64_t term_ = 0;
  uint64_t incarnation_ = 0;
  uint32_t next_node_ = 2;
  const size_t routers_;
  LeaseStore lease_;
  std::unique_ptr<Node> router_node_, second_node_;
  std::unique_ptr<RouterServer> router_, second_;
  std::map<std::string, std::unique_ptr<FakeWorker>> workers_;
};

}  // namespace bottega
