#include "gateway/gateway_program.h"

#include <fmt/format.h>

#include <optional>

#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/cluster/protocol.h"
#include "core/service/worker_process.h"
#include "gateway/gateway_server.h"
#include "gateway/model_directory.h"

namespace bottega {
namespace {

struct Options {
  ProcessOptions process;
  ModelOptions model;
  GatewayOptions gateway;
  std::string router = "127.0.0.1:50061";
  bool share_port = false;
};

OptionTable Table(Options* o) {
  OptionTable table("bottega-gateway", "The door of a cluster: OpenAI's HTTP API.");
  table.Positional("DIR", 0, 1);
  o->process.port = 8000;
  o->process.drain_timeout = std::chrono::seconds(300);
  AddModelOptions(table, &o->model);
  AddProcessOptions(table, &o->process, "HTTP port");
  AddGatewayOptions(table, &o->gateway);
  table.Add("router", &o->router, "host:port of the router, or of several by commas")
      .Add("share-port", &o->share_port,
           "other gateways listen at this port too; listen only once ready");
  return table;
}

absl::Status Serve(const Options& options) {
  ASSIGN_OR_RETURN(auto process, ServiceProcess::Start(Role::kGateway, options.process));
  ASSIGN_OR_RETURN(GatewayConfig config,
                   MakeGatewayConfig(options.gateway, options.process.host, options.process.port));
  config.share_port = options.share_port;
  ASSIGN_OR_RETURN(const auto model, OpenModel(options.model));
  ASSIGN_OR_RETURN(ModelText text,
                   LoadModelText(*model, options.gateway.served_model_name, options.model.dir));
  GatewayServer server(process->context(), std::move(config), std::move(text));
  ASSIGN_OR_RETURN(const int port, server.Start());
  process->context().log.Info(fmt::format("serving http://{}:{}/v1", options.process.host, port));
  const auto session = JoinRouter(process->context(), server, process->admin_address(),
                                  {.router_address = options.router},
                                  [&](absl::Status why) { process->Fail(std::move(why)); });
  process->ReportWith([&](Duration span) { return server.BusyLine(span); });
  const absl::Status end = process->Run([&](Time deadline) { return server.Drain(deadline); },
                                        [&] { return server.status(); });
  session->Stop();
  server.Stop();
  return end;
}

}  // namespace

std::unique_ptr<RouterSession> JoinRouter(ServiceContext& context, GatewayServer& server,
                                          const std::string& admin_address,
                                          const RouterSessionOptions& router,
                                          std::function<void(absl::Status)> on_refused) {
  MemberSelf self;
  self.member.incarnation = context.incarnation;
  self.member.role = Role::kGateway;
  self.member.name = context.name;
  self.member.admin_address = admin_address;
  self.member.device = "cpu";
  self.member.protocol_min = self.member.protocol_max = kProtocol;
  auto session = std::make_unique<RouterSession>(
      context, std::move(self), router,
      RouterSession::Callbacks{
          .on_table = [&server](TableSnapshot table) { server.UpdateTable(std::move(table)); },
          .on_refused = std::move(on_refused)});
  session->Start();
  server.KnowRouters(router.router_address);
  return session;
}

void AddGatewayOptions(OptionTable& table, GatewayOptions* o) {
  table.Add("served-model-name", &o->served_model_name, "name in the API (default: the folder's)")
      .Add("api-key", &o->api_keys, "key that clients must show; several times for several keys")
      .Add("reasoning-field", &o->reasoning_field, "where the reasoning goes")
      .OneOf({"both", "reasoning", "reasoning_content"})
      .Add("default-chat-template-kwargs", &o->default_chat_template_kwargs,
           "JSON object given to the template unless a request says otherwise")
      .Add("max-num-queued-reqs", &o->max_num_queued_reqs, "requests that may wait")
      .Range(1, limits::kQueuedRequestsMax)
      .Add("overload-status", &o->overload_status, "HTTP status of a full queue: 429 or 503")
      .Range(429, 503)
      .Add("no-web", &o->no_web, "serve no chat page at /");
}

absl::StatusOr<GatewayConfig> MakeGatewayConfig(const GatewayOptions& o, const std::string& host,
                                                int64_t port) {
  GatewayConfig config;
  config.host = host;
  config.port = static_cast<int>(port);
  config.api_keys = o.api_keys;
  config.queued_requests_max = static_cast<size_t>(o.max_num_queued_reqs);
  if (o.overload_status != 429 && o.overload_status != 503) {
    return MakeError(Reason::kInvalidValue, "--overload-status is 429 or 503");
  }
  config.overload_status = static_cast<int>(o.overload_status);
  config.web = !o.no_web;
  if (o.reasoning_field == "reasoning") {
    config.reasoning_field = gateway::ReasoningField::kReasoning;
  } else if (o.reasoning_field == "reasoning_content") {
    config.reasoning_field = gateway::ReasoningField::kReasoningContent;
  }
  if (!o.default_chat_template_kwargs.empty()) {
    config.default_template_kwargs =
        gateway::Json::parse(o.default_chat_template_kwargs, nullptr, /*allow_exceptions=*/false);
    if (!config.default_template_kwargs.is_object()) {
      return MakeError(Reason::kInvalidValue,
                       "--default-chat-template-kwargs is not a JSON object");
    }
  }
  return config;
}

int RunGatewayProgram(int argc, const char* const* argv) {
  Options options;
  OptionTable table = Table(&options);
  std::vector<std::string> positional;
  if (std::optional<int> code = ParseOrExit(table, argc, argv, &positional)) return *code;
  if (!positional.empty()) options.model.dir = positional.front();
  return ExitCode(Serve(options));
}

}  // namespace bottega
