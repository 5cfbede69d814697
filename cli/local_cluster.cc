#include "cli/local_cluster.h"

#include <chrono>
#include <utility>

#include "core/base/status.h"

namespace bottega {
namespace {

constexpr NodeId kAttentionNode{3};
constexpr NodeId kExpertNode{4};
constexpr NodeId kRouterNode{5};
constexpr NodeId kHubNode{6};

// Members share the loop: a long step delays their heartbeats and the router's own clock alike, so
// silence means nothing here.
constexpr Duration kSilence = std::chrono::hours(24);

RouterConfig ConfigOfRouter() {
  RouterConfig config;
  config.listen = "router:0";
  config.settle = Duration::zero();
  config.liveness.suspect_after = config.liveness.dead_after = kSilence;
  return config;
}

ExpertConfig ConfigOfExpert(const LocalClusterOptions& options, const PackedModel& model,
                            DType row_type) {
  ExpertConfig config;
  config.listen = "expert:0";
  config.expected_bytes = model.AllExpertBytes();
  config.row_type = row_type;
  config.detailed_metrics = options.detailed_metrics;
  return config;
}

AttentionConfig ConfigOfAttention(const LocalClusterOptions& options, DType row_type) {
  AttentionConfig config = options.attention;
  config.listen = "attention:0";
  config.row_type = row_type;
  config.detailed_metrics = options.detailed_metrics;
  return config;
}

}  // namespace

LocalCluster::LocalCluster(const ServiceContext& process, LocalClusterOptions options,
                           std::shared_ptr<const PackedModel> model, const Compute& compute,
                           std::function<void(absl::Status)> on_refused)
    : process_(process),
      on_refused_(std::move(on_refused)),
      network_(process.loop),
      hub_(process.loop, kHubNode),
      attention_end_(hub_.Open("attention")),
      expert_end_(hub_.Open("expert")),
      router_context_(ContextOf(Role::kRouter, kRouterNode)),
      expert_context_(ContextOf(Role::kExpert, kExpertNode)),
      attention_context_(ContextOf(Role::kAttention, kAttentionNode)),
      router_(router_context_, ConfigOfRouter()),
      expert_(expert_context_, ConfigOfExpert(options, *model, compute.row_type()), model,
              compute.cpu(), *expert_end_),
      attention_(attention_context_, ConfigOfAttention(options, compute.row_type()), model,
                 compute.cpu(), *attention_end_) {}

ServiceContext LocalCluster::ContextOf(Role role, NodeId node) {
  const char* const names[] = {"gateway", "router", "attention", "expert"};
  const char* const name = names[static_cast<int>(role)];
  return ServiceContext{.loop = process_.loop,
                        .node = node,
                        .network = network_,
                        .metrics = process_.metrics,
                        .faults = process_.faults,
                        .role = role,
                        .incarnation = NewIncarnation(),
                        .name = name,
                        .log = Logger(name, name),
                        .scrape = process_.scrape,
                        .flight = process_.flight,
                        .load = process_.load};
}

RouterSessionOptions LocalCluster::join() const {
  return {.router_address = router_.address(), .silence_max = kSilence};
}

absl::Status LocalCluster::Start() {
  RETURN_IF_ERROR(router_.Start());
  RETURN_IF_ERROR(expert_.Start());
  expert_.Join(join(), on_refused_);
  RETURN_IF_ERROR(attention_.Start());
  attention_.Join(join(), on_refused_);
  return absl::OkStatus();
}

void LocalCluster::Stop() {
  attention_.Stop();
  expert_.Stop();
  router_.Stop();
  for (NodeId node : {kAttentionNode, kExpertNode, kRouterNode}) process_.loop.Kill(node);
}

}  // namespace bottega
