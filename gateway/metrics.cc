#include "gateway/metrics.h"

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
      model_(model) {}

// The library finds an existing series of the same labels, so these make one series each.
void GatewayMetrics::Request(const std::string& route, int code) {
  AddCounter(
      registry_, Name("requests_total"), "Requests answered, by route and HTTP status.",
      {{"model_name", model_}, {"api", "openai"}, {"route", route}, {"code", std::to_string(code)}})
      .Increment();
}

void GatewayMetrics::Rejected(const std::string& reason) {
  AddCounter(registry_, Name("rejected_total"), "Requests refused before a token, by reason.",
             {{"reason", reason}})
      .Increment();
}

void GatewayMetrics::Finished(const std::string& reason) {
  AddCounter(registry_, Name("finished_total"), "Choices that ended, by finish_reason.",
             {{"model_name", model_}, {"reason", reason}})
      .Increment();
}

void GatewayMetrics::StreamError(const std::string& code) {
  AddCounter(registry_, Name("stream_errors_total"), "Answers that broke after they had begun.",
             {{"code", code}})
      .Increment();
}

void GatewayMetrics::Failover(const std::string& outcome) {
  AddCounter(registry_, Name("failovers_total"), "Sequences that lost their attention worker.",
             {{"outcome", outcome}})
      .Increment();
}

prometheus::Histogram& GatewayMetrics::Stage(const std::string& stage) {
  return AddHistogram(registry_, Name("stage_seconds"), "Time of one stage of a request.",
                      metrics::FineBuckets(), {{"stage", stage}});
}

}  // namespace bottega::gateway
