#include "cli/serve.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attention-worker/attention_program.h"
#include "attention-worker/attention_server.h"
#include "core/base/status.h"
#include "core/service/local_network.h"
#include "core/service/worker_process.h"
#include "core/transport/loopback_transport.h"
#include "expert-worker/expert_server.h"
#include "gateway/gateway_program.h"
#include "gateway/gateway_server.h"
#include "gateway/model_directory.h"
#include "router/router_server.h"

namespace bottega {
namespace {

constexpr NodeId kGatewayNode{2};
constexpr NodeId kAttentionNode{3};
constexpr NodeId kExpertNode{4};
constexpr NodeId kRouterNode{5};
constexpr NodeId kHubNode{6};

struct Options {
  ProcessOptions process;
  ModelOptions model;
  ComputeOptions compute;
  GatewayOptions gateway;
  ByteCount kv_cache;
  AttentionConfig attention;
  std::string moe_metrics = "basic";
};

OptionTable Table(Options* o) {
  OptionTable table("bottega serve", "Serves a model from one process.");
  table.Positional("DIR", 0, 1);
  o->process.port = 8000;
  AddModelOptions(table, &o->model);
  AddComputeOptions(table, &o->compute);
  AddProcessOptions(table, &o->process, "HTTP port");
  AddGatewayOptions(table, &o->gateway);
  AddAttentionOptions(table, &o->attention, &o->kv_cache);
  AddMoeMetricsOption(table, &o->moe_metrics);
  return table;
}

// A context of its own for one role of the process.
ServiceContext ContextOf(const ServiceContext& process, Role role, NodeId node, Network& network) {
  const char* const names[] = {"gateway", "router", "attention", "expert"};
  const char* const name = names[static_cast<int>(role)];
  return ServiceContext{.loop = process.loop,
                        .node = node,
                        .network = network,
                        .metrics = process.metrics,
                        .faults = process.faults,
                        .role = role,
                        .incarnation = NewIncarnation(),
                        .name = name,
                        .log = Logger(name, name),
                        .scrape = process.scrape,
                        .flight = process.flight};
}

absl::Status Serve(const Options& options) {
  ASSIGN_OR_RETURN(auto process, ServiceProcess::Start(Role::kGateway, options.process));
  ASSIGN_OR_RETURN(const auto compute, Compute::Make(options.compute));
  ASSIGN_OR_RETURN(const auto model, OpenModel(options.model, compute->cpu().pool));
  Loop& loop = process->loop();
  LocalNetwork network(loop);
  LoopbackHub hub(loop, kHubNode);
  const auto attention_end = hub.Open("attention");
  const auto expert_end = hub.Open("expert");

  // Members share the loop: a long step delays their heartbeats and the router's own clock alike,
  // so silence means nothing here.
  ServiceContext router_context =
      ContextOf(process->context(), Role::kRouter, kRouterNode, network);
  RouterConfig router_config;
  router_config.listen = "router:0";
  router_config.settle = Duration::zero();
  router_config.liveness.suspect_after = router_config.liveness.dead_after = std::chrono::hours(24);
  RouterServer router(router_context, router_config);
  RETURN_IF_ERROR(router.Start());
  const RouterSessionOptions join{.router_address = router.address(),
                                  .silence_max = std::chrono::hours(24)};
  const auto refused = [&process](absl::Status why) { process->Fail(std::move(why)); };

  ServiceContext expert_context =
      ContextOf(process->context(), Role::kExpert, kExpertNode, network);
  ExpertConfig expert_config;
  expert_config.listen = "expert:0";
  expert_config.row_type = compute->row_type();
  expert_config.detailed_metrics = options.moe_metrics == "detailed";
  ExpertServer expert(expert_context, expert_config, model, compute->cpu(), *expert_end);
  RETURN_IF_ERROR(expert.Start());
  expert.Join(join, refused);

  ServiceContext attention_context =
      ContextOf(process->context(), Role::kAttention, kAttentionNode, network);
  AttentionConfig attention_config = options.attention;
  attention_config.listen = "attention:0";
  attention_config.row_type = compute->row_type();
  attention_config.kv_bytes = options.kv_cache.value;
  attention_config.detailed_metrics = expert_config.detailed_metrics;
  AttentionServer attention(attention_context, attention_config, model, compute->cpu(),
                            *attention_end);
  RETURN_IF_ERROR(attention.Start());
  attention.Join(join, refused);
  process->SetNumericsId(attention.numerics_id());

  ServiceContext gateway_context =
      ContextOf(process->context(), Role::kGateway, kGatewayNode, network);
  ASSIGN_OR_RETURN(GatewayConfig gateway_config,
                   MakeGatewayConfig(options.gateway, options.process.host, options.process.port));
  ASSIGN_OR_RETURN(ModelText text,
                   LoadModelText(*model, options.gateway.served_model_name, options.model.dir));
  const std::string name = text.name;
  GatewayServer gateway(gateway_context, std::move(gateway_config), std::move(text));
  ASSIGN_OR_RETURN(const int port, gateway.Start());

  const auto session =
      JoinRouter(gateway_context, gateway, process->admin_address(), join, refused);
  std::printf("admin     %s\n", process->admin_address().c_str());
  process->ReportWith([&](Duration span) { return gateway.BusyLine(span); });
  bool announced = false;
  const absl::Status end =
      process->Run([&](Time deadline) { return gateway.Drain(deadline); },
                   [&]() -> std::string {
                     const std::string status = attention.ready() ? gateway.status() : "loading";
                     if (status == "ready" && !announced) {
                       announced = true;
                       std::printf("ready     http://%s:%d   (model %s)\n",
                                   options.process.host.c_str(), port, name.c_str());
                       std::fflush(stdout);
                     }
                     return status;
                   });
  session->Stop();
  gateway.Stop();
  attention.Stop();
  expert.Stop();
  router.Stop();
  for (NodeId node : {kGatewayNode, kAttentionNode, kExpertNode, kRouterNode}) loop.Kill(node);
  return end;
}

}  // namespace

int RunServe(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.model.dir = positional.front();
  return ExitCode(Serve(options));
}

}  // namespace bottega
