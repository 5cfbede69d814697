#pragma once

#include <map>
#include <memory>
#include <string>

#include "attention-worker/config.h"
#include "attention-worker/engine.h"
#include "attention-worker/expert_links.h"
#include "bottega/internal/v1/attention.pb.h"
#include "core/model/packed_model.h"
#include "core/service/context.h"
#include "core/service/router_session.h"
#include "core/service/scrape_hooks.h"
#include "core/transport/transport.h"

namespace bottega {

// One attention worker: maps its weights, runs the engine, serves gateways, keeps links to the
// expert workers of the table. Start in this order, stop in reverse. Loop thread only; everything
// given outlives it.
class AttentionServer {
 public:
  AttentionServer(ServiceContext& context, AttentionConfig config,
                  std::shared_ptr<const PackedModel> model, Cpu cpu, Transport& transport);
  ~AttentionServer();

  // Sizes the KV pool, then maps and checks the weights, which takes long. Any thread; Start does
  // it where nobody has.
  absl::Status Load();
  // Fails hard and early with a reason: weights damaged, memory short, port busy.
  absl::Status Start();
  // Registers at the router and follows its table; on_refused ends the process.
  void Join(const RouterSessionOptions& router, std::function<void(absl::Status)> on_refused);
  // Leaves the table, waits for what is running until `deadline`.
  Task<absl::Status> Drain(Time deadline);
  void Stop();

  const std::string& address() const { return address_; }  // of the gRPC server
  int64_t max_model_len() const { return max_model_len_; }
  std::string numerics_id() const;
  // For the log: what was done in the `span` since the last call; "" if nothing.
  std::string BusyLine(Duration span) { return metrics_.BusyLine(engine_->scheduler(), span); }
  // In the table, with a link to a replica of every expert.
  bool ready() const;
  MemberSelf Self() const;
  void UpdateTable(TableSnapshot table);
  Engine& engine() { return *engine_; }
  std::vector<BadWorker> bad_workers() const { return dispatcher_->bad_workers(); }
  const DispatcherStats& exchange_stats() const { return dispatcher_->stats(); }

 private:
  friend Task<void> ServeGateway(AttentionServer* server, std::unique_ptr<ByteStream> bytes);
  using GatewayStream = MessageStream<internal::v1::AttentionMessage, internal::v1::GatewayMessage>;

  absl::Status SizePool();
  std::string NameOf(MemberId member) const;
  void Publish(const StepEvents& events);
  Task<void> SayAlive();
  // A gateway's stream, owned by its handler.
  struct Gateway {
    GatewayStream* stream;
    uint64_t submits_seen = 0;
  };
  internal::v1::Grants GrantsNow(const Gateway& gateway) const;

  ServiceContext& context_;
  AttentionConfig config_;
  std::shared_ptr<const PackedModel> model_;
  const Cpu cpu_;
  Transport& transport_;

  AttentionMetrics metrics_;
  AttentionWeights weights_;
  std::unique_ptr<HashTrace> trace_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<ExpertLinks> links_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<RouterSession> session_;
  ScrapeHooks::Hook scrape_;
  TableSnapshot table_;
  std::map<OwnerId, Gateway> gateways_;
  OwnerId next_owner_ = 1;
  Time published_{};  // when the gateways last heard
  std::string address_;
  int64_t max_model_len_ = 0;
  int32_t kv_blocks_ = 0;
};

}  // namespace bottega
