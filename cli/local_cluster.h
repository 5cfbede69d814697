#pragma once

#include <functional>
#include <memory>

#include "attention-worker/attention_server.h"
#include "core/model/packed_model.h"
#include "core/service/context.h"
#include "core/service/local_network.h"
#include "core/service/router_session.h"
#include "core/service/worker_process.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"
#include "router/router_server.h"

namespace bottega {

struct LocalClusterOptions {
  AttentionConfig attention;  // address and row type are the cluster's
  bool detailed_metrics = false;
};

// A cluster in one process, all on one loop: router, one expert worker with all experts, one
// attention worker, loopback between them. `bottega serve` puts a gateway before it, `bottega
// bench` is its own client. Loop thread only; everything given outlives it.
class LocalCluster {
 public:
  // `process`: of whose loop, metrics and logs the members are. `on_refused`: the router turned one
  // of them away, which ends the process.
  LocalCluster(const ServiceContext& process, LocalClusterOptions options,
               std::shared_ptr<const PackedModel> model, const Compute& compute,
               std::function<void(absl::Status)> on_refused);

  // Maps and checks what is no expert's, which takes long. Any thread, before Start.
  absl::Status LoadAttention() { return attention_.Load(); }
  // Fails hard and early with a reason: weights damaged, memory short. Experts are loaded by the
  // loop.
  absl::Status Start();
  // After whoever talks to it; kills what still runs.
  void Stop();

  // A context for one more member of that role; give it a node of its own.
  ServiceContext ContextOf(Role role, NodeId node);
  // How such a member registers. After Start.
  RouterSessionOptions join() const;

  // Tokens can be had: every expert is loaded and linked.
  bool ready() const { return attention_.ready(); }
  AttentionServer& attention() { return attention_; }
  const ExpertStats& expert_stats() { return expert_.engine().stats(); }

 private:
  const ServiceContext& process_;
  const std::function<void(absl::Status)> on_refused_;
  LocalNetwork network_;
  LoopbackHub hub_;
  const std::unique_ptr<Transport> attention_end_;
  const std::unique_ptr<Transport> expert_end_;
  ServiceContext router_context_;
  ServiceContext expert_context_;
  ServiceContext attention_context_;
  RouterServer router_;
  ExpertServer expert_;
  AttentionServer attention_;
};

}  // namespace bottega
