#include "cli/cluster_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "core/base/status.h"
#include "core/service/option_value.h"

namespace bottega {
namespace {

std::string Program(const char* name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / name).string();
}

void Append(std::vector<std::string>& arguments, std::vector<std::string> more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
}

// Attention workers and expert workers take turns in a step, so each kind has all cores, and its
// workers share them.
int64_t ThreadsOfEach(int64_t asked, int64_t workers) {
  const int64_t cores = std::max<int64_t>(1, std::thread::hardware_concurrency());
  return asked > 0 ? asked : std::max<int64_t>(1, cores / workers);
}

// One after the other, so that `name` alone stays what it is where there is only one.
std::string Numbered(const char* name, int64_t index, int64_t count) {
  return count == 1 ? name : fmt::format("{}-{}", name, index);
}

class Planner {
 public:
  Planner(const UpOptions& options, const std::string& packed, const std::string& model_name,
          const std::string& lease_file, LocalPorts& ports)
      : o_(options),
        packed_(packed),
        model_name_(model_name),
        lease_file_(lease_file),
        ports_(ports) {}

  absl::StatusOr<ClusterPlan> Make() {
    RETURN_IF_ERROR(PickHttpPort());
    RETURN_IF_ERROR(AddRouters());
    for (int64_t i = 0; i < o_.expert_workers; ++i) {
      RETURN_IF_ERROR(
          Add(Role::kExpert, fmt::format("expert-{}", i),
              Worker("bottega-expert", ThreadsOfEach(o_.compute.threads, o_.expert_workers))));
    }
    for (int64_t i = 0; i < o_.attention_workers; ++i) {
      const int64_t asked = o_.attention_threads > 0 ? o_.attention_threads : o_.compute.threads;
      std::vector<std::string> arguments =
          Worker("bottega-attention", ThreadsOfEach(asked, o_.attention_workers));
      if (!o_.kv_cache.empty()) Append(arguments, {"--kv-cache", o_.kv_cache});
      RETURN_IF_ERROR(Add(Role::kAttention, fmt::format("attention-{}", i), std::move(arguments)));
    }
    for (int64_t i = 0; i < o_.gateways; ++i) {
      RETURN_IF_ERROR(Add(Role::kGateway, fmt::format("gateway-{}", i), Gateway()));
    }
    return std::move(plan_);
  }

 private:
  absl::Status PickHttpPort() {
    if (o_.port != 0) {
      plan_.http_port = static_cast<int>(o_.port);
      return CheckFree(o_.host, o_.port);
    }
    ASSIGN_OR_RETURN(plan_.http_port, ports_.Take());
    return absl::OkStatus();
  }

  absl::Status Add(Role role, const std::string& name, std::vector<std::string> arguments) {
    ASSIGN_OR_RETURN(const int admin_port, ports_.Take());
    Append(arguments, {"--die-with-parent", "--log-format", o_.log_format, "--flight-dir",
                       o_.flight_dir, "--name", name, "--admin-port", std::to_string(admin_port)});
    plan_.processes.push_back({.role = role,
                               .name = name,
                               .arguments = std::move(arguments),
                               .admin_address = fmt::format("127.0.0.1:{}", admin_port)});
    return absl::OkStatus();
  }

  absl::Status AddRouters() {
    for (int64_t i = 0; i < o_.routers; ++i) {
      ASSIGN_OR_RETURN(const int port, ports_.Take());
      plan_.routers += fmt::format("{}127.0.0.1:{}", i == 0 ? "" : ",", port);
      std::vector<std::string> arguments = {Program("bottega-router"), "--port",
                                            std::to_string(port), "--replication",
                                            std::to_string(o_.replication)};
      if (!o_.lease.empty()) {
        Append(arguments, {"--lease", o_.lease});
      } else if (o_.routers > 1) {
        Append(arguments, {"--lease", "file:" + lease_file_});
      }
      RETURN_IF_ERROR(Add(Role::kRouter, Numbered("router", i, o_.routers), std::move(arguments)));
    }
    return absl::OkStatus();
  }

  std::vector<std::string> Worker(const char* program, int64_t threads) const {
    std::vector<std::string> arguments = {Program(program),     packed_,
                                          "--router",           plan_.routers,
                                          "--row-type",         o_.compute.row_type,
                                          "--threads",          std::to_string(threads),
                                          "--exchange",         o_.exchange,
                                          "--exchange-devices", o_.exchange_devices,
                                          "--moe-metrics",      o_.moe_metrics};
    if (!o_.compute.isa.empty()) Append(arguments, {"--isa", o_.compute.isa});
    return arguments;
  }

  std::vector<std::string> Gateway() const {
    const GatewayOptions& g = o_.gateway;
    Duration interrupt_timeout = o_.drain_timeout;
    std::vector<std::string> arguments = {Program("bottega-gateway"),
                                          packed_,
                                          "--router",
                                          plan_.routers,
                                          "--host",
                                          o_.host,
                                          "--port",
                                          std::to_string(plan_.http_port),
                                          "--share-port",
                                          "--served-model-name",
                                          model_name_,
                                          "--reasoning-field",
                                          g.reasoning_field,
                                          "--max-num-queued-reqs",
                                          std::to_string(g.max_num_queued_reqs),
                                          "--interrupt-timeout",
                                          FormatTarget(&interrupt_timeout),
                                          "--overload-status",
                                          std::to_string(g.overload_status)};
    if (g.no_web) Append(arguments, {"--no-web"});
    for (const std::string& key : g.api_keys) Append(arguments, {"--api-key", key});
    if (!g.default_chat_template_kwargs.empty()) {
      Append(arguments, {"--default-chat-template-kwargs", g.default_chat_template_kwargs});
    }
    return arguments;
  }

  const UpOptions& o_;
  const std::string& packed_;
  const std::string& model_name_;
  const std::string& lease_file_;
  LocalPorts& ports_;
  ClusterPlan plan_;
};

}  // namespace

absl::StatusOr<ClusterPlan> PlanCluster(const UpOptions& options, const std::string& packed,
                                        const std::string& model_name,
                                        const std::string& lease_file, LocalPorts& ports) {
  return Planner(options, packed, model_name, lease_file, ports).Make();
}

ProcessPlan Successor(const ProcessPlan& plan, int admin_port) {
  ProcessPlan next = plan;
  // The last four are what Planner::Add wrote: --name N --admin-port P.
  const size_t end = next.arguments.size();
  std::string& name = next.arguments[end - 3];
  name = name == plan.name ? plan.name + "+" : plan.name;
  next.arguments[end - 1] = std::to_string(admin_port);
  next.admin_address = fmt::format("127.0.0.1:{}", admin_port);
  return next;
}

}  // namespace bottega
