#include "gateway/metrics.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;
using metrics::AddHistogram;

std::string Name(const char* name) { return std::string("bottega_gateway_") + name; }

}  // namespace

GatewayMetrics::GatewayMetrics(prometheus::Registry& r, const std::string& model, double context)
    : prompt_tokens(AddCounter(r, Name("prompt_tokens_total"), "Tokens of prompts served.",
                               {{"model_name", model}})),
      generation_tokens(AddCounter(r, Name("generation_tokens_total"), "Tokens generated.",
                                   {{"model_name", model}})),
      reasoning_tokens(AddCounter(r, Name("reasoning_tokens_total"),
                                  "Generated tokens that were reasoning.",
                                  {{"model_name", model}})),
      disconnects(AddCounter(r, Name("disconnects_total"), "Clients that left before the end.")),
      ignored_fields(
          AddCounter(r, Name("ignored_fields_total"), "Request fields nobody here knows.")),
      tool_parse_errors(AddCounter(r, Name("tool_parse_errors_total"),
                                   "Tool calls of models that were no clean JSON.")),
      quarantined(AddCounter(r, Name("quarantined_total"),
                             "Requests that killed the workers that ran them.")),
      requests_running(AddGauge(r, Name("requests_running"), "Requests with a place at a worker.",
                                {{"model_name", model}})),
      queue_depth(AddGauge(r, Name("queue_depth"), "Requests waiting for a place.",
                           {{"model_name", model}})),
      kv_usage_ratio(
          AddGauge(r, Name("kv_usage_ratio"), "Share of the attention workers' KV blocks in use.")),
      open_streams(AddGauge(r, Name("open_streams"), "Event streams being written.")),
      token_log_bytes(AddGauge(r, Name("token_log_bytes"), "Token logs of live requests.")),
      time_to_first_token(AddHistogram(
          r, Name("time_to_first_token_seconds"), "From a request's arrival to its first token.",
          metrics::TimeToFirstTokenBuckets(), {{"model_name", model}})),
      inter_token_latency(AddHistogram(r, Name("inter_token_latency_seconds"),
                                       "Between two tokens of one sequence.",
                                       metrics::InterTokenBuckets(), {{"model_name", model}})),
      failover_stall(AddHistogram(r, Name("failover_stall_seconds"),
                                  "From the loss of a worker to the next token of a sequence.",
                                  metrics::InterTokenBuckets())),
      request_duration(AddHistogram(r, Name("request_duration_seconds"),
                                    "From a request's arrival to its answer's end.",
                                    metrics::EndToEndBuckets(), {{"model_name", model}})),
      request_prompt_tokens(AddHistogram(r, Name("request_prompt_tokens"),
                                         "Prompt tokens of one request.",
                                         metrics::TokenBuckets(context), {{"model_name", model}})),
      request_generation_tokens(
          AddHistogram(r, Name("request_generation_tokens"), "Generated tokens of one request.",
                       metrics::TokenBuckets(context), {{"model_name", model}})),
      detokenize_seconds(AddHistogram(r, Name("stage_seconds"), "Time of one stage of a request.",
                                      metrics::FineBuckets(), {{"stage", "detokenize"}})),
      registry_(r),
      model_(model) {
  // All of a closed set from the start: a counter that appears with its first event has no rate.
  for (const ReasonRow& row : ReasonTable()) {
    if (row.reason == Reason::kCancelled) continue;
    Rejections(std::string(row.name));
    if (row.http_status >= 500) StreamErrors(std::string(row.name));
  }
  for (const char* reason : {"stop", "length", "tool_calls"}) Finishes(reason);
  for (const char* outcome : {"resumed", "gave_up"}) Failovers(outcome);
  for (const char* stage : {"parse", "render", "tokenize", "admit"}) Stage(stage);
}

std::string GatewayMetrics::BusyLine(Duration span) {
  const double in = prompt_tokens.Value() - std::exchange(told_in_, prompt_tokens.Value());
  const double out =
      generation_tokens.Value() - std::exchange(told_out_, generation_tokens.Value());
  if (in + out + requests_running.Value() + queue_depth.Value() == 0) return "";
  const double seconds = Seconds(span);
  return fmt::format("{:.1f} tokens/s in, {:.1f} out; {} running, {} waiting; KV {:.0f} %",
                     in / seconds, out / seconds, requests_running.Value(), queue_depth.Value(),
                     100 * kv_usage_ratio.Value());
}

// The library finds an existing series of the same labels, so these make one series each.
void GatewayMetrics::Request(const std::string& route, int code) {
  AddCounter(
      registry_, Name("requests_total"), "Requests answered, by route and HTTP status.",
      {{"model_name", model_}, {"api", "openai"}, {"route", route}, {"code", std::to_string(code)}})
      .Increment();
}

prometheus::Counter& GatewayMetrics::Rejections(const std::string& reason) {
  return AddCounter(registry_, Name("rejected_total"),
                    "Requests refused before a token, by reason.", {{"reason", reason}});
}

prometheus::Counter& GatewayMetrics::Finishes(const std::string& reason) {
  return AddCounter(registry_, Name("finished_total"), "Choices that ended, by finish_reason.",
                    {{"model_name", model_}, {"reason", reason}});
}

prometheus::Counter& GatewayMetrics::StreamErrors(const std::string& code) {
  return AddCounter(registry_, Name("stream_errors_total"),
                    "Answers that broke after they had begun.", {{"code", code}});
}

prometheus::Counter& GatewayMetrics::Failovers(const std::string& outcome) {
  return AddCounter(registry_, Name("failovers_total"),
                    "Sequences that lost their attention worker.", {{"outcome", outcome}});
}

prometheus::Histogram& GatewayMetrics::Stage(const std::string& stage) {
  return AddHistogram(registry_, Name("stage_seconds"), "Time of one stage of a request.",
                      metrics::FineBuckets(), {{"stage", stage}});
}

}  // namespace bottega::gateway
