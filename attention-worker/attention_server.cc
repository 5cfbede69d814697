#include "attention-worker/attention_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "attention-worker/ops/serve.h"
#include "core/base/load_progress.h"
#include "core/base/memory_limit.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/cluster/protocol.h"
#include "core/model/footprint.h"
#include "core/service/transport_metrics.h"

namespace bottega {
namespace {

constexpr Duration kAliveInterval = std::chrono::milliseconds(100);

// Whether somebody found a member wrong since; `before`: null at first.
bool NewlyQuarantined(const ClusterTable* before, const ClusterTable& now) {
  return std::ranges::any_of(now.members, [before](const Member& member) {
    if (member.state != MemberState::kQuarantined || before == nullptr) return false;
    const Member* then = before->Find(member.id);
    return then == nullptr || then->state != MemberState::kQuarantined;
  });
}

}  // namespace

AttentionServer::AttentionServer(ServiceContext& context, AttentionConfig config,
                                 std::shared_ptr<const PackedModel> model, Cpu cpu,
                                 Transport& transport)
    : context_(context),
      config_(std::move(config)),
      model_(std::move(model)),
      cpu_(cpu),
      transport_(transport),
      metrics_(context.metrics, model_->dir().filename().string()) {}

// Its tasks use its members: they end first. Nothing is sent by that.
AttentionServer::~AttentionServer() { context_.loop.Kill(context_.node); }

std::string AttentionServer::numerics_id() const {
  return fmt::format("{}-{}", model_->numerics_base(), std::string(Name(config_.row_type)));
}

absl::Status AttentionServer::SizePool() {
  const ModelConfig& model = model_->config();
  const uint64_t wanted = config_.kv_bytes != 0 ? config_.kv_bytes : kDefaultKvBytes;
  const int64_t block_bytes = static_cast<int64_t>(KvCache::BlockBytes(model, config_.row_type));
  const int64_t blocks = std::min<int64_t>(
      static_cast<int64_t>(wanted) / block_bytes,
      config_.max_num_seqs * ((model.max_positions + kKvBlockPositions - 1) / kKvBlockPositions));
  const int64_t held = blocks * kKvBlockPositions;
  max_model_len_ = std::min<int64_t>(model.max_positions, held);
  if (config_.max_model_len > 0) max_model_len_ = std::min(max_model_len_, config_.max_model_len);
  if (config_.max_model_len > max_model_len_) {
    return MakeError(
        Reason::kInvalidValue,
        fmt::format("--max-model-len {}: the model offers {} and the KV pool of {} MiB "
                    "holds {} positions",
                    config_.max_model_len, model.max_positions, wanted >> 20, held));
  }
  if (max_model_len_ < kKvBlockPositions) {
    return MakeError(
        Reason::kInvalidValue,
        fmt::format("a KV pool of {} bytes holds no context; one block of {} positions "
                    "takes {} bytes",
                    wanted, kKvBlockPositions, block_bytes));
  }
  kv_blocks_ = static_cast<int32_t>(blocks);
  const uint64_t pool = static_cast<uint64_t>(blocks * block_bytes);
  const uint64_t memory = ReadMemoryLimit().bytes;
  RETURN_IF_ERROR(KvCache::CheckMemory(pool, memory));
  // Only a word: weights are pages of a file, which other processes may hold already and which can
  // be read again.
  const uint64_t needed = pool + model_->AttentionBytes() + kWorkingBytes;
  if (memory != 0 && needed > memory) {
    context_.log.Warning(fmt::format(
        "KV pool, weights and buffers are {} MiB, this process may use {}: when the pool "
        "fills, weights will be read from the disk again and again; give a smaller "
        "--kv-cache",
        needed >> 20, memory >> 20));
  }
  metrics_.vllm().Pool(kKvBlockPositions, kv_blocks_);
  return absl::OkStatus();
}

absl::Status AttentionServer::Load() {
  RETURN_IF_ERROR(SizePool());
  if (context_.load != nullptr) {
    context_.load->Expect(static_cast<int64_t>(model_->AttentionBytes()));
  }
  ASSIGN_OR_RETURN(weights_, model_->MapAttention());
  return absl::OkStatus();
}

absl::Status AttentionServer::Start() {
  const ModelConfig& model = model_->config();
  if (weights_.layers.empty()) RETURN_IF_ERROR(Load());
  if (!config_.hash_trace.empty()) {
    ASSIGN_OR_RETURN(trace_, HashTrace::Open(config_.hash_trace));
  }
  DispatcherOptions options;
  options.shape = {.layers = static_cast<uint32_t>(model.num_layers),
                   .experts = static_cast<uint32_t>(model.num_experts),
                   .top_k = static_cast<uint32_t>(model.experts_per_token),
                   .hidden = static_cast<uint32_t>(model.hidden_size),
                   .row_type = config_.row_type};
  options.flight = context_.flight;
  options.on_peer_lost = [this](MemberId member, const absl::Status&) { links_->PeerLost(member); };
  options.verify_every = config_.verify_every;
  options.on_bad_worker = [this] {
    context_.log.Error("an expert worker's answers are wrong: it gets no more work");
    engine_->DoubtCached();
    if (session_ != nullptr) session_->Tell();
  };
  dispatcher_ = std::make_unique<Dispatcher>(context_.loop, transport_, context_.incarnation,
                                             std::move(options));
  internal::v1::PairHello hello;
  hello.set_incarnation(context_.incarnation.value);
  hello.set_name(context_.name);
  hello.set_protocol(kProtocol);
  hello.set_model_digest(model_->digest());
  hello.set_numerics_id(numerics_id());
  const TransportOffer offer = transport_.offer();
  hello.mutable_offer()->mutable_kinds()->Assign(offer.kinds.begin(), offer.kinds.end());
  hello.mutable_offer()->set_host(offer.host);
  links_ = std::make_unique<ExpertLinks>(context_, *dispatcher_, transport_, std::move(hello));

  const EngineOptions engine{
      .row_type = config_.row_type,
      .limits = {.sequences = static_cast<int32_t>(config_.max_num_seqs),
                 .prefill_tokens = static_cast<int32_t>(config_.prefill_tokens),
                 .max_length = static_cast<int32_t>(max_model_len_)},
      .kv_blocks = kv_blocks_,
      .prefix_cache = {.enabled = config_.prefix_cache,
                       .seed = context_.incarnation.value,
                       .hash_mask = config_.prefix_hash_mask},
      .step_budget = config_.step_budget,
      .draft_tokens = static_cast<int32_t>(config_.draft_tokens),
      .spoil_freed = config_.spoil_freed,
      .trace = trace_.get(),
      .faults = &context_.faults,
      .flight = context_.flight};
  ASSIGN_OR_RETURN(engine_,
                   Engine::Create(context_.loop, cpu_, *model_, weights_, *dispatcher_, metrics_,
                                  engine, [this](const StepEvents& events) { Publish(events); }));
  context_.loop.Spawn(context_.node, engine_->Run());
  context_.loop.Spawn(context_.node, SayAlive());
  if (context_.scrape != nullptr) {
    AttentionMetrics::PeerName peer_name;
    if (config_.detailed_metrics) peer_name = [this](MemberId member) { return NameOf(member); };
    scrape_ = context_.scrape->Add([this, peer_name] {
      metrics_.Publish(engine_->scheduler());
      metrics_.Publish(*dispatcher_, peer_name);
      CopyTransportBytes(transport_, context_.metrics);
    });
  }

  std::vector<std::pair<std::string, Network::Handler>> methods;
  methods.emplace_back(
      "/bottega.internal.v1.Attention/Serve",
      [this](std::unique_ptr<ByteStream> stream) { return ServeGateway(this, std::move(stream)); });
  ASSIGN_OR_RETURN(address_,
                   context_.network.Serve(context_.node, config_.listen, std::move(methods)));
  context_.log.Info(fmt::format("{} serves at {}: context {}, {} KV blocks of {} positions, {}",
                                context_.name, address_, max_model_len_, kv_blocks_,
                                kKvBlockPositions, numerics_id()));
  return absl::OkStatus();
}

MemberSelf AttentionServer::Self() const {
  MemberSelf self;
  self.member.incarnation = context_.incarnation;
  self.member.role = Role::kAttention;
  self.member.name = context_.name;
  self.member.control_address = address_;
  self.member.admin_address = config_.admin_address;
  self.member.device = "cpu";
  self.member.protocol_min = self.member.protocol_max = kProtocol;
  self.member.numerics_id = numerics_id();
  self.model_digest = model_->digest();
  self.layers = static_cast<uint32_t>(model_->config().num_layers);
  self.experts = static_cast<uint32_t>(model_->config().num_experts);
  for (uint8_t moe : model_->config().is_moe_layer) self.dense_layers.push_back(moe == 0);
  return self;
}

void AttentionServer::Join(const RouterSessionOptions& router,
                           std::function<void(absl::Status)> on_refused) {
  session_ = std::make_unique<RouterSession>(
      context_, Self(), router,
      RouterSession::Callbacks{
          .on_table = [this](TableSnapshot table) { UpdateTable(std::move(table)); },
          .load =
              [this] { return static_cast<double>(config_.max_num_seqs - engine_->free_slots()); },
          .bad_workers =
              [this] {
                std::vector<std::pair<Incarnation, std::string>> bad;
                for (const BadWorker& worker : dispatcher_->bad_workers()) {
                  bad.emplace_back(worker.incarnation, Name(worker.fault));
                }
                return bad;
              },
          .endpoints = [this] { return EndpointsUp(transport_); },
          .on_refused = std::move(on_refused)});
  session_->Start();
}

void AttentionServer::UpdateTable(TableSnapshot table) {
  if (NewlyQuarantined(table_.get(), *table)) engine_->DoubtCached();
  table_ = std::move(table);
  dispatcher_->UpdateTable(table_);
  links_->UpdateTable(table_);
}

std::string AttentionServer::NameOf(MemberId member) const {
  const Member* found = table_ == nullptr ? nullptr : table_->Find(member);
  return found == nullptr ? "other" : found->name;
}

bool AttentionServer::ready() const {
  if (table_ == nullptr) return false;
  const bool listed =
      std::any_of(table_->members.begin(), table_->members.end(), [this](const Member& member) {
        return member.incarnation == context_.incarnation && member.state == MemberState::kActive;
      });
  if (!listed) return false;
  for (uint32_t layer = 0; layer < table_->layers; ++layer) {
    if (!model_->config().is_moe_layer[layer]) continue;
    for (uint32_t expert = 0; expert < table_->experts; ++expert) {
      const auto& replicas = table_->ReplicasOf(LayerId{static_cast<uint16_t>(layer)},
                                                ExpertId{static_cast<uint16_t>(expert)});
      const bool linked = std::any_of(replicas.begin(), replicas.end(), [this](MemberId member) {
        return links_->connected(member);
      });
      if (!linked) return false;
    }
  }
  return true;
}

Task<absl::Status> AttentionServer::Drain(Time deadline) {
  absl::Status left;
  if (session_ != nullptr) left = co_await session_->Drain(deadline);
  while (!engine_->idle() && context_.loop.Now() < deadline) {
    co_await context_.loop.Sleep(std::chrono::milliseconds(10));
  }
  co_return engine_->idle() ? left : absl::DeadlineExceededError("requests are running");
}

void AttentionServer::Stop() {
  if (session_ != nullptr) session_->Stop();
  context_.network.Shutdown(context_.node);
}

internal::v1::Grants AttentionServer::GrantsNow(const Gateway& gateway) const {
  internal::v1::Grants grants;
  grants.set_free_slots(static_cast<uint32_t>(std::max(0, engine_->free_slots())));
  grants.set_free_kv_blocks(static_cast<uint32_t>(engine_->free_blocks()));
  grants.set_kv_block_tokens(kKvBlockPositions);
  grants.set_submits_seen(gateway.submits_seen);
  return grants;
}

// A gateway takes a worker that has its sequences and says nothing for dead. Long steps, and waits
// for an expert, are no silence: the loop turns in them. One that is wedged says nothing.
Task<void> AttentionServer::SayAlive() {
  while (true) {
    co_await context_.loop.Sleep(kAliveInterval);
    if (engine_->idle() || context_.loop.Now() - published_ < kAliveInterval) continue;
    Publish({});
  }
}

// One message a gateway and step. Every gateway hears of the grants, whoever's tokens they were.
void AttentionServer::Publish(const StepEvents& events) {
  if (!events.tokens.empty()) {
    if (absl::Status lost = FAULT_POINT(context_.faults, "aw.before_emit"); !lost.ok()) return;
  }
  published_ = context_.loop.Now();
  std::map<OwnerId, internal::v1::AttentionMessage> messages;
  for (const auto& [owner, gateway] : gateways_) {
    *messages[owner].mutable_step()->mutable_grants() = GrantsNow(gateway);
  }
  for (const TokenEvent& event : events.tokens) {
    auto it = messages.find(event.key.owner);
    if (it != messages.end()) *it->second.mutable_step()->add_tokens() = ToProto(event);
  }
  for (const EndEvent& event : events.ended) {
    auto it = messages.find(event.key.owner);
    if (it != messages.end()) *it->second.mutable_step()->add_ended() = ToProto(event);
  }
  for (const TrialEvent& event : events.trials) {
    auto gateway = gateways_.find(event.key.owner);
    if (gateway == gateways_.end()) continue;
    internal::v1::AttentionMessage trial;
    trial.mutable_trial()->set_request_key(event.key.request_key);
    trial.mutable_trial()->set_owner_epoch(event.owner_epoch);
    if (absl::Status sent = gateway->second.stream->Send(trial); !sent.ok()) {
      gateway->second.stream->Close(sent);
    }
  }
  for (auto& [owner, message] : messages) {
    GatewayStream* stream = gateways_.at(owner).stream;
    // A gateway that does not read is cut off; it may come back with another stream.
    if (absl::Status sent = stream->Send(message); !sent.ok()) stream->Close(sent);
  }
}

}  // namespace bottega
