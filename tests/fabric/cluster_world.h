#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention-worker/attention_server.h"
#include "core/base/fault_point.h"
#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/service/local_network.h"
#include "core/service/router_session.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"
#include "gateway/gateway_service.h"
#include "router/router_server.h"
#include "tests/fabric/fabric_model.h"

namespace bottega::fabric {

struct ClusterOptions {
  uint64_t seed = 1;
  uint32_t attention_workers = 1;
  uint32_t expert_workers = 2;
  uint32_t replication = 1;
  uint64_t kv_bytes = uint64_t{4} << 20;  // of an attention worker's pool
  int64_t prefill_tokens = limits::kPrefillChunkTokens;
  bool prefix_cache = true;
  int64_t draft_tokens = 8;  // 0: no speculation
  uint64_t prefix_hash_mask = ~uint64_t{0};
  uint32_t verify_every = 0;  // dispatches executed twice
  Duration quarantine_min = std::chrono::milliseconds(500);
  WeightFormat weights = WeightFormat::kF32;
  DType row_type = DType::kF32;  // of exchanged rows and of the KV cache
  Isa isa = BestIsa();
  int threads = 1;  // that compute, for all workers together
};

// The answer to one request, as a client would get it.
class Answer : public gateway::Reply {
 public:
  void Whole(int status, gateway::Headers, std::string body) override {
    status_ = status;
    body_ = std::move(body);
    done_ = true;
  }
  void StartEvents(gateway::Headers) override { status_ = 200; }
  bool Write(std::string bytes) override {
    body_ += bytes;
    return true;
  }
  void Finish(bool) override { done_ = true; }
  void Cut() override { done_ = true; }
  void OnGone(std::function<void()>) override {}  // this client stays

  bool done() const { return done_; }
  int status() const { return status_; }
  const std::string& body() const { return body_; }

 private:
  int status_ = 0;
  bool done_ = false;
  std::string body_;
};

// A whole cluster as real actors on one simulated loop: gateway, router, attention workers, expert
// workers. Only the HTTP socket and the network below the streams and frames are left out.
class ClusterWorld {
 public:
  explicit ClusterWorld(const ClusterOptions& options);
  ~ClusterWorld();

  // Runs until the gateway is ready and every worker holds what it was assigned; false if that does
  // not come within 20 virtual seconds.
  bool BecomeReady();
  // Runs until `done` or for `limit` of virtual time; what `done` says at the end.
  // `done` is asked each `interval`.
  bool RunUntil(const std::function<bool()>& done, Duration limit,
                Duration interval = std::chrono::milliseconds(1));
  void RunFor(Duration time) { loop_->RunUntil(loop_->Now() + time); }

  std::shared_ptr<Answer> Ask(gateway::Api api, std::string body);

  // Life and death. A process that is started again is a new incarnation under its name.
  void StartRouter();
  void KillRouter();
  void StartAttention(uint32_t index);
  void KillAttention(uint32_t index);
  void StartExpert(uint32_t index);
  void KillExpert(uint32_t index);
  void PauseExpert(uint32_t index, Duration time);  // frames of and to it wait, as after a SIGSTOP
  // Nothing goes in or out of it for so long, then what was held does: seen from outside it was
  // stopped, and wakes up as a zombie.
  void PauseAttention(uint32_t index, Duration time);
  // Of the present life. A `crash` in their plans kills the process; it is started anew after
  // restart_after.
  FaultPoints& attention_faults(uint32_t index) { return attention_[index]->process->faults; }
  FaultPoints& expert_faults(uint32_t index) { return experts_[index]->process->faults; }
  Duration restart_after = std::chrono::milliseconds(50);
  uint64_t attention_crashes = 0, expert_crashes = 0;
  // All expert workers live, and the router and every attention worker trust them.
  bool ExpertsWhole() const;
  // The next message between two processes breaks its stream.
  void BreakStream(NodeId a, NodeId b) { broken_ = {a, b}; }
  LocalNetwork& network() { return *network_; }

  // Of the present life; nothing of a dead process.
  std::optional<NodeId> router_node() const { return NodeOf(*router_); }
  std::optional<NodeId> attention_node(uint32_t index) const { return NodeOf(*attention_[index]); }
  std::optional<NodeId> expert_node(uint32_t index) const { return NodeOf(*experts_[index]); }
  NodeId gateway_node() const { return gateway_->process->context.node; }
  uint32_t attention_workers() const { return static_cast<uint32_t>(attention_.size()); }
  uint32_t expert_workers() const { return static_cast<uint32_t>(experts_.size()); }
  // Every expert is loaded at some living worker other than this one.
  bool CanDoWithout(uint32_t expert_worker) const;

  size_t frames_leased() const;
  uint64_t gateway_term() const { return gateway_->session->table()->term; }

  Loop& loop() { return *loop_; }
  const Cpu& cpu() const { return cpu_; }
  gateway::GatewayService& gateway() { return *gateway_->service; }
  AttentionServer& attention(uint32_t index) { return *attention_[index]->server; }
  ExpertServer& expert(uint32_t index) { return *experts_[index]->server; }
  TableSnapshot table() const { return router_->server->table(); }
  // Of frames between attention and expert workers; the default is a short delay.
  void SetFrameFaults(std::function<void(FrameFate*, absl::Span<const std::byte>)> faults) {
    frame_faults_ = std::move(faults);
  }
  bool Chance(double p) { return static_cast<double>(loop_->SimRandom() >> 11) * 0x1p-53 < p; }
  uint64_t Below(uint64_t n) { return loop_->SimRandom() % n; }
  Duration Between(Duration a, Duration b) { return a + Duration(Below((b - a).count() + 1)); }

 private:
  // One life of one process.
  struct Process {
    Process(ClusterWorld& world, Role role, const std::string& name);
    prometheus::Registry registry;
    FaultPoints faults;
    ServiceContext context;
  };
  struct Router {
    std::unique_ptr<Process> process;
    std::unique_ptr<RouterServer> server;
  };
  struct Gateway {
    std::unique_ptr<Process> process;
    std::unique_ptr<gateway::GatewayService> service;
    std::unique_ptr<RouterSession> session;
  };
  struct Attention {
    std::unique_ptr<Process> process;
    std::unique_ptr<LoopbackTransport> transport;
    std::unique_ptr<AttentionServer> server;
    Time paused_until{};
    bool crashed = false;  // dead, and not yet taken away
  };
  struct Expert {
    std::unique_ptr<Process> process;
    std::unique_ptr<LoopbackTransport> transport;
    std::unique_ptr<ExpertServer> server;
    Time paused_until{};
    bool crashed = false;
  };

  template <class T>
  static std::optional<NodeId> NodeOf(const T& life) {
    if (life.process == nullptr) return std::nullopt;
    return life.process->context.node;
  }

  void StartGateway();
  void Crash(NodeId node, bool* crashed);
  Task<void> TakeAway(Role role, uint32_t index);
  Task<void> HealLater(std::vector<std::pair<NodeId, NodeId>> cuts, Duration after);
  FrameFate FateOf(const std::string& from, const std::string& to,
                   absl::Span<const std::byte> frame);

  const ClusterOptions options_;
  const FabricModel& model_;
  ThreadPool pool_;
  const Cpu cpu_;
  std::unique_ptr<Loop> loop_;
  std::unique_ptr<LocalNetwork> network_;
  std::unique_ptr<LoopbackHub> hub_;
  std::function<void(FrameFate*, absl::Span<const std::byte>)> frame_faults_;
  std::optional<std::pair<NodeId, NodeId>> broken_;
  uint64_t lives_ = 0;
  uint64_t requests_ = 0;
  std::unique_ptr<Router> router_ = std::make_unique<Router>();
  std::unique_ptr<Gateway> gateway_ = std::make_unique<Gateway>();
  std::vector<std::unique_ptr<Attention>> attention_;
  std::vector<std::unique_ptr<Expert>> experts_;
};

}  // namespace bottega::fabric
