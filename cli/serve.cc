#include "cli/serve.h"

#include <fmt/format.h>

#include <cstdio>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attention-worker/attention_program.h"
#include "cli/local_cluster.h"
#include "core/base/status.h"
#include "core/service/load_bar.h"
#include "core/service/worker_process.h"
#include "gateway/gateway_program.h"
#include "gateway/gateway_server.h"
#include "gateway/model_directory.h"

namespace bottega {
namespace {

constexpr NodeId kGatewayNode{2};

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

absl::Status Serve(const Options& options) {
  ASSIGN_OR_RETURN(auto process, ServiceProcess::Start(Role::kGateway, options.process));
  std::printf("admin     %s\n", process->admin_address().c_str());
  std::fflush(stdout);  // who waits can look there
  ASSIGN_OR_RETURN(const auto compute, Compute::Make(options.compute));
  ASSIGN_OR_RETURN(const auto model,
                   OpenModel(options.model, ReadingOf(process->context(), *compute)));
  const auto refused = [&process](absl::Status why) { process->Fail(std::move(why)); };
  LocalClusterOptions cluster_options{.attention = options.attention,
                                      .detailed_metrics = options.moe_metrics == "detailed"};
  cluster_options.attention.kv_bytes = options.kv_cache.value;
  LocalCluster cluster(process->context(), std::move(cluster_options), model, *compute, refused);
  process->SetNumericsId(cluster.attention().numerics_id());
  std::optional<LoadWatch> watch(process->health().load());
  std::future<absl::Status> loading =
      std::async(std::launch::async, [&cluster] { return cluster.LoadAttention(); });

  // Meanwhile the tokenizer, which takes a quarter of a second on one core, and the door: clients
  // hear that the model is loading.
  ServiceContext gateway_context = cluster.ContextOf(Role::kGateway, kGatewayNode);
  ASSIGN_OR_RETURN(GatewayConfig gateway_config,
                   MakeGatewayConfig(options.gateway, options.process.host, options.process.port));
  ASSIGN_OR_RETURN(ModelText text,
                   LoadModelText(*model, options.gateway.served_model_name, options.model.dir));
  const std::string name = text.name;
  GatewayServer gateway(gateway_context, std::move(gateway_config), std::move(text));
  ASSIGN_OR_RETURN(const int port, gateway.Start());

  RETURN_IF_ERROR(loading.get());
  RETURN_IF_ERROR(cluster.Start());
  const auto session =
      JoinRouter(gateway_context, gateway, process->admin_address(), cluster.join(), refused);
  process->ReportWith([&](Duration span) { return gateway.BusyLine(span); });
  bool announced = false;
  const absl::Status end =
      process->Run([&](Time deadline) { return gateway.Drain(deadline); },
                   [&]() -> std::string {
                     const std::string status = cluster.ready() ? gateway.status() : "loading";
                     if (status == "ready" && !announced) {
                       announced = true;
                       watch.reset();
                       std::printf("ready     http://%s:%d   (model %s)\n",
                                   options.process.host.c_str(), port, name.c_str());
                       std::fflush(stdout);
                     }
                     return status;
                   });
  watch.reset();
  session->Stop();
  gateway.Stop();
  cluster.Stop();
  process->loop().Kill(kGatewayNode);
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
