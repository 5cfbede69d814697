#pragma once

#include <map>
#include <string>

#include "core/base/time.h"
#include "observability/metrics.h"

namespace bottega::gateway {

// The gateway's series (names, units and meaning in observability/metrics.md). Loop thread, except
// where a member says otherwise; counters themselves may be touched from any thread.
class GatewayMetrics {
 public:
  GatewayMetrics(prometheus::Registry& registry, const std::string& model, double context);

  // Labels come from closed sets: route patterns, HTTP codes, reasons of core/base/reason.h.
  void Request(const std::string& route, int code);
  void Rejected(const std::string& reason) { Rejections(reason).Increment(); }
  void Finished(const std::string& reason) { Finishes(reason).Increment(); }
  void StreamError(const std::string& code) { StreamErrors(code).Increment(); }
  void Failover(const std::string& outcome) { Failovers(outcome).Increment(); }
  prometheus::Histogram& Stage(const std::string& stage);
  // For the log: what was done in the `span` since the last call; "" if nothing.
  std::string BusyLine(Duration span);

  prometheus::Counter& prompt_tokens;
  prometheus::Counter& generation_tokens;
  prometheus::Counter& reasoning_tokens;
  prometheus::Counter& disconnects;
  prometheus::Counter& ignored_fields;
  prometheus::Counter& tool_parse_errors;
  prometheus::Counter& quarantined;
  prometheus::Gauge& requests_running;
  prometheus::Gauge& queue_depth;
  prometheus::Gauge& kv_usage_ratio;
  prometheus::Gauge& open_streams;
  prometheus::Gauge& token_log_bytes;
  prometheus::Histogram& time_to_first_token;
  prometheus::Histogram& inter_token_latency;
  prometheus::Histogram& failover_stall;
  prometheus::Histogram& request_duration;
  prometheus::Histogram& request_prompt_tokens;
  prometheus::Histogram& request_generation_tokens;
  prometheus::Histogram& detokenize_seconds;  // stage_seconds, of one token

 private:
  prometheus::Counter& Rejections(const std::string& reason);
  prometheus::Counter& Finishes(const std::string& reason);
  prometheus::Counter& StreamErrors(const std::string& code);
  prometheus::Counter& Failovers(const std::string& outcome);

  prometheus::Registry& registry_;
  const std::string model_;
  double told_in_ = 0, told_out_ = 0;  // tokens
};

}  // namespace bottega::gateway
