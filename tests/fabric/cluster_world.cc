#include "tests/fabric/cluster_world.h"

#include <fmt/format.h>
#include <prometheus/registry.h>

namespace bottega::fabric {

using namespace std::chrono_literals;

namespace {

constexpr NodeId kHubNode{1}, kWorldNode{2};
constexpr char kRouterAddress[] = "router";

Task<void> Watch(Loop& loop, const std::function<bool()>* done, Time limit, Duration interval) {
  while (!(*done)() && loop.Now() < limit) co_await loop.Sleep(interval);
  loop.Stop();
}

// Delays by the seed; a stream breaks when it is told to.
class ControlFaults : public Faults {
 public:
  ControlFaults(Loop& loop, std::optional<std::pair<NodeId, NodeId>>* broken)
      : delays_(SeededFaults(loop, {})), broken_(broken) {}
  Duration Delay(NodeId from, NodeId to) override { return delays_->Delay(from, to); }
  Duration DeathDelay(NodeId dead, NodeId peer) override { return delays_->DeathDelay(dead, peer); }
  bool Reset(NodeId from, NodeId to) override {
    if (*broken_ != std::pair(from, to) && *broken_ != std::pair(to, from)) return false;
    broken_->reset();
    return true;
  }

 private:
  const std::unique_ptr<Faults> delays_;
  std::optional<std::pair<NodeId, NodeId>>* const broken_;
};

void Refused(const absl::Status& why) {
  std::fprintf(stderr, "the router refuses a member: %s\n", why.ToString().c_str());
  CHECK(!"a member was refused");
}

}  // namespace

ClusterWorld::Process::Process(ClusterWorld& world, Role role, const std::string& name)
    : context{.loop = *world.loop_,
              .node = NodeId{static_cast<uint32_t>(100 + ++world.lives_)},
              .network = *world.network_,
              .metrics = registry,
              .faults = faults,
              .role = role,
              .incarnation = Incarnation{1'000'000 + world.lives_},
              .name = name,
              .log = Logger("fabric", name)} {}

ClusterWorld::ClusterWorld(const ClusterOptions& options)
    : options_(options),
      model_(FabricModel::Get(options.weights)),
      pool_(options.threads),
      cpu_(MakeCpu(options.isa, &pool_)),
      loop_(Loop::Simulated(options.seed)) {
  network_ =
      std::make_unique<LocalNetwork>(*loop_, std::make_unique<ControlFaults>(*loop_, &broken_));
  hub_ = std::make_unique<LoopbackHub>(*loop_, kHubNode);
  hub_->set_poison(true);
  hub_->set_down_delay(1ms);
  hub_->SetFaults([this](const std::string& from, const std::string& to, auto frame) {
    return FateOf(from, to, frame);
  });
  attention_.resize(options.attention_workers);
  experts_.resize(options.expert_workers);
  for (auto& attention : attention_) attention = std::make_unique<Attention>();
  for (auto& expert : experts_) expert = std::make_unique<Expert>();
  StartRouter();
  for (uint32_t i = 0; i < options.expert_workers; ++i) StartExpert(i);
  for (uint32_t i = 0; i < options.attention_workers; ++i) StartAttention(i);
  StartGateway();
}

ClusterWorld::~ClusterWorld() {
  network_->Kill(gateway_->process->context.node);
  gateway_->session.reset();
  gateway_->service.reset();
  for (uint32_t i = 0; i < attention_.size(); ++i) KillAttention(i);
  for (uint32_t i = 0; i < experts_.size(); ++i) KillExpert(i);
  KillRouter();
  loop_->Kill(kWorldNode);
}

FrameFate ClusterWorld::FateOf(const std::string& from, const std::string& to,
                               absl::Span<const std::byte> frame) {
  FrameFate fate;
  fate.delay = Between(10us, 100us);
  if (frame_faults_) frame_faults_(&fate, frame);
  for (uint32_t i = 0; i < experts_.size(); ++i) {
    const std::string name = fmt::format("expert-{}", i);
    if (from != name && to != name) continue;
    const Duration pause = experts_[i]->paused_until - loop_->Now();
    fate.delay = std::max(fate.delay, pause + 10us);
    fate.drop |= experts_[i]->crashed;
  }
  for (uint32_t i = 0; i < attention_.size(); ++i) {
    const std::string name = fmt::format("attention-{}", i);
    if (from != name && to != name) continue;
    const Duration pause = attention_[i]->paused_until - loop_->Now();
    fate.delay = std::max(fate.delay, pause + 10us);
    fate.drop |= attention_[i]->crashed;
  }
  return fate;
}

void ClusterWorld::StartRouter() {
  router_->process = std::make_unique<Process>(*this, Role::kRouter, "router");
  RouterConfig config;
  config.listen = kRouterAddress;
  config.replication = options_.replication;
  config.quarantine_min = options_.quarantine_min;
  router_->server = std::make_unique<RouterServer>(router_->process->context, config,
                                                   SoleLease(1 + lives_));  // no wall clock in here
  CHECK(router_->server->Start().ok());
}

void ClusterWorld::KillRouter() {
  if (router_->process == nullptr) return;
  network_->Kill(router_->process->context.node);
  router_->server.reset();
  router_->process.reset();
}

void ClusterWorld::StartExpert(uint32_t index) {
  Expert& expert = *experts_[index];
  const std::string name = fmt::format("expert-{}", index);
  expert.process = std::make_unique<Process>(*this, Role::kExpert, name);
  expert.crashed = false;
  expert.process->faults.set_on_crash([this, &expert, index] {
    if (expert.crashed) return;
    ++expert_crashes;
    Crash(expert.process->context.node, &expert.crashed);
    loop_->Spawn(kWorldNode, TakeAway(Role::kExpert, index));
  });
  expert.transport = hub_->Open(name);
  ExpertConfig config;
  config.listen = name;
  config.row_type = options_.row_type;
  expert.server = std::make_unique<ExpertServer>(expert.process->context, config, model_.packed(),
                                                 cpu_, *expert.transport);
  CHECK(expert.server->Start().ok());
  expert.server->Join({.router_address = kRouterAddress}, Refused);
}

void ClusterWorld::KillExpert(uint32_t index) {
  Expert& expert = *experts_[index];
  if (expert.process == nullptr) return;
  network_->Kill(expert.process->context.node);
  expert.server.reset();
  expert.transport.reset();
  expert.process.reset();
}

void ClusterWorld::PauseExpert(uint32_t index, Duration time) {
  experts_[index]->paused_until = loop_->Now() + time;
}

// The frames of the node go once the task that crashed suspends.
void ClusterWorld::Crash(NodeId node, bool* crashed) {
  *crashed = true;
  network_->Kill(node);
}

Task<void> ClusterWorld::TakeAway(Role role, uint32_t index) {
  co_await loop_->Sleep(0ms);
  role == Role::kAttention ? KillAttention(index) : KillExpert(index);
  co_await loop_->Sleep(restart_after);
  if (role == Role::kAttention && !attention_node(index)) StartAttention(index);
  if (role == Role::kExpert && !expert_node(index)) StartExpert(index);
}

void ClusterWorld::PauseAttention(uint32_t index, Duration time) {
  attention_[index]->paused_until = loop_->Now() + time;
  const NodeId node = *attention_node(index);
  std::vector<NodeId> others = {gateway_node()};
  if (router_node()) others.push_back(*router_node());
  for (uint32_t i = 0; i < experts_.size(); ++i) {
    if (expert_node(i)) others.push_back(*expert_node(i));
  }
  std::vector<std::pair<NodeId, NodeId>> cuts;
  for (NodeId other : others) {
    cuts.emplace_back(node, other);
    cuts.emplace_back(other, node);
  }
  for (const auto& [from, to] : cuts) network_->Cut(from, to);
  loop_->Spawn(kWorldNode, HealLater(std::move(cuts), time));
}

Task<void> ClusterWorld::HealLater(std::vector<std::pair<NodeId, NodeId>> cuts, Duration after) {
  co_await loop_->Sleep(after);
  for (const auto& [from, to] : cuts) network_->Heal(from, to);
}

bool ClusterWorld::ExpertsWhole() const {
  if (router_->server == nullptr || table() == nullptr) return false;
  size_t active = 0;
  for (const Member& member : table()->members) {
    active += member.role == Role::kExpert && member.state == MemberState::kActive;
  }
  for (const auto& attention : attention_) {
    if (attention->server == nullptr || !attention->server->bad_workers().empty()) return false;
  }
  return active == experts_.size();
}

bool ClusterWorld::CanDoWithout(uint32_t expert_worker) const {
  const ModelConfig& model = model_.packed()->config();
  for (uint16_t layer = 0; layer < model.num_layers; ++layer) {
    for (uint16_t expert = 0; expert < model.num_experts; ++expert) {
      bool held = false;
      for (uint32_t i = 0; i < experts_.size(); ++i) {
        if (i == expert_worker || experts_[i]->server == nullptr) continue;
        held |= experts_[i]->server->engine().held().Holds(LayerId{layer}, ExpertId{expert});
      }
      if (!held) return false;
    }
  }
  return true;
}

size_t ClusterWorld::frames_leased() const {
  size_t leased = 0;
  for (const auto& attention : attention_) {
    if (attention->transport != nullptr) leased += attention->transport->leased();
  }
  for (const auto& expert : experts_) {
    if (expert->transport != nullptr) leased += expert->transport->leased();
  }
  return leased;
}

void ClusterWorld::StartAttention(uint32_t index) {
  Attention& attention = *attention_[index];
  const std::string name = fmt::format("attention-{}", index);
  attention.process = std::make_unique<Process>(*this, Role::kAttention, name);
  attention.crashed = false;
  attention.process->faults.set_on_crash([this, &attention, index] {
    if (attention.crashed) return;
    ++attention_crashes;
    Crash(attention.process->context.node, &attention.crashed);
    loop_->Spawn(kWorldNode, TakeAway(Role::kAttention, index));
  });
  attention.transport = hub_->Open(name);
  AttentionConfig config;
  config.listen = name;
  config.row_type = options_.row_type;
  config.kv_bytes = options_.kv_bytes;
  config.prefill_tokens = options_.prefill_tokens;
  config.prefix_cache = options_.prefix_cache;
  config.draft_tokens = options_.draft_tokens;
  config.prefix_hash_mask = options_.prefix_hash_mask;
  config.verify_every = options_.verify_every;
  config.spoil_freed = true;
  attention.server = std::make_unique<AttentionServer>(attention.process->context, config,
                                                       model_.packed(), cpu_, *attention.transport);
  CHECK(attention.server->Start().ok());
  attention.server->Join({.router_address = kRouterAddress}, Refused);
}

void ClusterWorld::KillAttention(uint32_t index) {
  Attention& attention = *attention_[index];
  if (attention.process == nullptr) return;
  network_->Kill(attention.process->context.node);
  attention.server.reset();
  attention.transport.reset();
  attention.process.reset();
}

void ClusterWorld::StartGateway() {
  gateway_->process = std::make_unique<Process>(*this, Role::kGateway, "gateway");
  GatewayConfig config;
  config.text_threads = 0;
  ServiceContext& context = gateway_->process->context;
  gateway_->service = std::make_unique<gateway::GatewayService>(context, config, model_.text());
  gateway_->service->Start();
  MemberSelf self;
  self.member.incarnation = context.incarnation;
  self.member.role = Role::kGateway;
  self.member.name = context.name;
  gateway_->session = std::make_unique<RouterSession>(
      context, std::move(self), RouterSessionOptions{.router_address = kRouterAddress},
      RouterSession::Callbacks{
          .on_table = [this](TableSnapshot table) { gateway_->service->UpdateTable(table); },
          .on_refused = Refused});
  gateway_->session->Start();
}

bool ClusterWorld::RunUntil(const std::function<bool()>& done, Duration limit, Duration interval) {
  loop_->Spawn(kWorldNode, Watch(*loop_, &done, loop_->Now() + limit, interval));
  loop_->Run();
  return done();
}

bool ClusterWorld::BecomeReady() {
  return RunUntil(
      [this] {
        if (std::string_view(gateway_->service->status()) != "ready") return false;
        for (const auto& attention : attention_) {
          if (attention->server != nullptr && !attention->server->ready()) return false;
        }
        for (const auto& expert : experts_) {
          if (expert->server != nullptr && !expert->server->ready()) return false;
        }
        return true;
      },
      20s);
}

std::shared_ptr<Answer> ClusterWorld::Ask(gateway::Api api, std::string body) {
  auto answer = std::make_shared<Answer>();
  gateway::HttpRequest request;
  request.method = "POST";
  request.path = api == gateway::Api::kChat ? "/v1/chat/completions" : "/v1/completions";
  request.body = std::move(body);
  request.request_id = fmt::format("request-{}", ++requests_);
  gateway_->service->Generate(api, std::move(request), answer);
  return answer;
}

}  // namespace bottega::fabric
