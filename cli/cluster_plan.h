#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/local_ports.h"
#include "cli/supervisor.h"
#include "core/service/worker_process.h"
#include "gateway/gateway_program.h"

namespace bottega {

// What `bottega up` is told.
struct UpOptions {
  ModelOptions model;
  ComputeOptions compute;
  GatewayOptions gateway;
  std::string host = "127.0.0.1";
  int64_t port = 8000;
  int64_t gateways = 1;
  int64_t routers = 1;
  std::string lease;  // empty: a file, if there are several routers
  int64_t attention_workers = 1;
  int64_t expert_workers = 2;
  int64_t attention_threads = 0;  // of each; 0: as compute.threads
  int64_t replication = 1;
  std::string kv_cache;
  std::string exchange = "auto";
  std::string exchange_devices = "lo";
  std::string moe_metrics = "basic";
  std::string prometheus_targets;
  std::string flight_dir;
  std::string log_format = "json";  // of the processes' lines
  std::string log_file;
  Duration drain_timeout = std::chrono::seconds(5);
};

// The processes of a cluster on this machine: who is started with which arguments.
struct ClusterPlan {
  std::vector<ProcessPlan> processes;  // in the order of starting
  std::string routers;                 // host:port of each, by commas
  int http_port = 0;
};

// Takes ports for all of them from `ports`, which are still held then. `lease_file`
// is for several routers without --lease.
absl::StatusOr<ClusterPlan> PlanCluster(const UpOptions& options, const std::string& packed,
                                        const std::string& model_name,
                                        const std::string& lease_file, LocalPorts& ports);

// A second process in `plan`'s place, which may run beside the first: another name in the cluster
// (a member's name is taken over by its next process) and another admin port.
ProcessPlan Successor(const ProcessPlan& plan, int admin_port);

}  // namespace bottega
