#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>

#include "core/base/gate.h"
#include "core/service/context.h"
#include "gateway/admission.h"
#include "gateway/attention_client.h"
#include "gateway/cluster_view.h"
#include "gateway/config.h"
#include "gateway/metrics.h"
#include "gateway/quarantine.h"
#include "gateway/reply.h"
#include "gateway/request.h"
#include "gateway/text.h"
#include "gateway/text_pool.h"

namespace bottega::gateway {

// What is ended at a drain's deadline has so long to be told, and so long to leave.
inline constexpr Duration kLastWords = std::chrono::milliseconds(500);

// Of requests that come, or are not finished, when a gateway ends.
absl::Status ShuttingDown();

// What the live requests of one gateway share. Loop thread only, except where a member says
// otherwise. HTTP is one way in; the fabric calls Generate itself.
class GatewayService {
 public:
  GatewayService(const ServiceContext& context, GatewayConfig config, ModelText model);
  ~GatewayService();

  // Starts the background tasks; once.
  void Start();
  void UpdateTable(TableSnapshot table);
  // Serves one body of a generating route; the answer goes to `reply`.
  void Generate(Api api, HttpRequest request, std::shared_ptr<Reply> reply);

  // New requests are refused; returns when the live ones have ended, which they do at the deadline:
  // with an error.
  Task<absl::Status> Drain(Time deadline);
  // Ends the streams to the workers. After it the node's tasks may be killed.
  void Close();

  // "ready", "loading", "no_worker", "experts_unavailable" or "draining". Any thread.
  const char* status() const { return status_.load(std::memory_order_relaxed); }
  // Tokens that a prompt and its answer may have together: the model's, or what the smallest KV
  // pool of the workers met last holds. Any thread.
  int64_t context_tokens() const { return context_tokens_.load(std::memory_order_relaxed); }

  const ServiceContext& context() const { return context_; }
  const GatewayConfig& config() const { return config_; }  // any thread
  const ModelText& model() const { return model_; }        // any thread
  TextPool& pool() { return pool_; }                       // any thread
  GatewayMetrics& metrics() { return metrics_; }
  AttentionClients& workers() { return workers_; }
  Admission& admission() { return admission_; }
  Quarantine& quarantine() { return quarantine_; }
  ClusterView& cluster() { return cluster_; }
  Gate& gate() { return gate_; }
  bool draining() const { return gate_.closed(); }

  uint64_t NextRequestKey() { return ++last_request_key_; }
  int64_t DrawSeed();
  // False: a live request has this id already.
  bool TakeId(const std::string& id) { return live_ids_.insert(id).second; }
  void ReturnId(const std::string& id) { live_ids_.erase(id); }
  // Each live request's, for as long as it lives.
  void AddEvents(RequestEvents* events) { live_events_.insert(events); }
  void RemoveEvents(RequestEvents* events) { live_events_.erase(events); }

 private:
  void WorkersChanged();
  static Task<void> WatchStatus(GatewayService* self);
  const char* StatusNow() const;
  const char* StatusOfCluster() const;

  const ServiceContext& context_;
  const GatewayConfig config_;
  const ModelText model_;
  GatewayMetrics metrics_;
  Gate gate_;
  AttentionClients workers_;
  Admission admission_;
  Quarantine quarantine_;
  ClusterView cluster_;
  TableSnapshot table_;
  std::set<std::string> live_ids_;
  std::set<RequestEvents*> live_events_;
  uint64_t last_request_key_ = 0;
  std::atomic<const char*> status_ = "loading";
  std::atomic<int64_t> context_tokens_;
  TextPool pool_;  // last: its threads end first
};

}  // namespace bottega::gateway
