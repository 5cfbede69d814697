#include "attention-worker/vllm_metrics.h"

#include <chrono>

#include "core/base/limits.h"

namespace bottega {
namespace {

using metrics::AddCounter;
using metrics::AddGauge;

const std::vector<double> kChoiceBuckets = {1, 2, 5, 10, 20};  // vLLM's

constexpr double kLongestContext = 131072;  // of the token histograms' buckets

metrics::Labels With(metrics::Labels labels, const char* name, const std::string& value) {
  labels[name] = value;
  return labels;
}

}  // namespace

VllmMetrics::VllmMetrics(prometheus::Registry& r, const std::string& model)
    : registry_(r),
      labels_{{"model_name", model}, {"engine", "0"}},
      running_(AddGauge(r, "vllm:num_requests_running", "Sequences that decode", labels_)),
      waiting_(AddGauge(r, "vllm:num_requests_waiting", "Sequences in prefill or before", labels_)),
      kv_usage_(AddGauge(r, "vllm:kv_cache_usage_perc", "KV cache in use, 0 to 1", labels_)),
      prompt_tokens_(AddCounter(r, "vllm:prompt_tokens_total", "Prompt tokens", labels_)),
      generation_tokens_(
          AddCounter(r, "vllm:generation_tokens_total", "Generated tokens", labels_)),
      preemptions_(AddCounter(r, "vllm:num_preemptions_total", "Preemptions", labels_)),
      cache_queries_(AddCounter(r, "vllm:prefix_cache_queries_total",
                                "Tokens looked up in the prefix cache", labels_)),
      cache_hits_(AddCounter(r, "vllm:prefix_cache_hits_total", "Tokens found in the prefix cache",
                             labels_)),
      drafts_(AddCounter(r, "vllm:spec_decode_num_drafts_total", "Drafts", labels_)),
      draft_tokens_(AddCounter(r, "vllm:spec_decode_num_draft_tokens_total",
                               "Tokens that were guessed", labels_)),
      accepted_tokens_(AddCounter(r, "vllm:spec_decode_num_accepted_tokens_total",
                                  "Guessed tokens that were right", labels_)),
      stopped_(AddCounter(r, "vllm:request_success_total", "Finished sequences",
                          With(labels_, "finished_reason", "stop"))),
      cut_(AddCounter(r, "vllm:request_success_total", "Finished sequences",
                      With(labels_, "finished_reason", "length"))),
      iteration_tokens_(r, "vllm:iteration_tokens_total", "Tokens of a step", metrics::RowBuckets(),
                        labels_),
      first_token_(r, "vllm:time_to_first_token_seconds", "Arrival here to the first token",
                   metrics::TimeToFirstTokenBuckets(), labels_),
      inter_token_(r, "vllm:inter_token_latency_seconds", "Between two tokens",
                   metrics::InterTokenBuckets(), labels_),
      per_output_token_(r, "vllm:request_time_per_output_token_seconds",
                        "Mean time between tokens of a sequence", metrics::InterTokenBuckets(),
                        labels_),
      e2e_(r, "vllm:e2e_request_latency_seconds", "Arrival here to the last token",
           metrics::EndToEndBuckets(), labels_),
      queue_(r, "vllm:request_queue_time_seconds", "Arrival here to the first step",
             metrics::EndToEndBuckets(), labels_),
      prefill_(r, "vllm:request_prefill_time_seconds", "First step to the first token",
               metrics::EndToEndBuckets(), labels_),
      decode_(r, "vllm:request_decode_time_seconds", "First token to the last",
              metrics::EndToEndBuckets(), labels_),
      inference_(r, "vllm:request_inference_time_seconds", "First step to the last token",
                 metrics::EndToEndBuckets(), labels_),
      prompt_length_(r, "vllm:request_prompt_tokens", "Prompt tokens of a sequence",
                     metrics::TokenBuckets(kLongestContext), labels_),
      generation_length_(r, "vllm:request_generation_tokens", "Generated tokens of a sequence",
                         metrics::TokenBuckets(kLongestContext), labels_),
      max_generation_(r, "vllm:request_params_max_tokens", "max_tokens of a sequence",
                      metrics::TokenBuckets(kLongestContext), labels_),
      longest_choice_(r, "vllm:request_max_num_generation_tokens",
                      "Generated tokens of a request's longest choice",
                      metrics::TokenBuckets(kLongestContext), labels_),
      choices_(r, "vllm:request_params_n", "n of a request", kChoiceBuckets, labels_) {
  for (int position = 0; position < limits::kSequenceDraftTokensMax; ++position) {
    accepted_at_.push_back(&AddCounter(r, "vllm:spec_decode_num_accepted_tokens_per_pos_total",
                                       "Guessed tokens that were right, by place in their draft",
                                       With(labels_, "position", std::to_string(position))));
  }
}

void VllmMetrics::Pool(int block_tokens, int blocks) {
  metrics::Labels labels = labels_;
  labels["block_size"] = std::to_string(block_tokens);
  labels["num_gpu_blocks"] = std::to_string(blocks);
  AddGauge(registry_, "vllm:cache_config_info", "1; the KV pool is in the labels", labels).Set(1);
}

void VllmMetrics::Publish(const SpeculationStats& stats) {
  metrics::RaiseTo(drafts_, static_cast<double>(stats.drafts));
  metrics::RaiseTo(draft_tokens_, static_cast<double>(stats.draft_tokens));
  metrics::RaiseTo(accepted_tokens_, static_cast<double>(stats.accepted_tokens));
  for (size_t position = 0; position < accepted_at_.size(); ++position) {
    metrics::RaiseTo(*accepted_at_[position], static_cast<double>(stats.accepted_at[position]));
  }
}

void VllmMetrics::Token(const Sequence& sequence, Time now, Finish finish) {
  generation_tokens_.Increment();
  if (!sequence.last_token) {
    prompt_tokens_.Increment(static_cast<double>(sequence.spec.prompt_ids.size()));
    first_token_.Observe(Seconds(now - sequence.submitted));
    queue_.Observe(Seconds(*sequence.started - sequence.submitted));
    prefill_.Observe(Seconds(now - *sequence.started));
  } else {
    inter_token_.Observe(Seconds(now - *sequence.last_token));
  }
  if (finish != Finish::kNone) Finished(sequence, now, finish);
}

void VllmMetrics::Finished(const Sequence& sequence, Time now, Finish finish) {
  (finish == Finish::kStop ? stopped_ : cut_).Increment();
  const Duration decoding = now - sequence.first_token.value_or(now);
  const double gaps = static_cast<double>(sequence.generated()) - 1;
  if (gaps > 0) per_output_token_.Observe(Seconds(decoding) / gaps);
  e2e_.Observe(Seconds(now - sequence.submitted));
  decode_.Observe(Seconds(decoding));
  inference_.Observe(Seconds(now - *sequence.started));
  prompt_length_.Observe(static_cast<double>(sequence.spec.prompt_ids.size()));
  generation_length_.Observe(static_cast<double>(sequence.generated()));
  max_generation_.Observe(static_cast<double>(sequence.spec.max_tokens));
  // Siblings may be at other workers: the first one stands for all.
  if (sequence.spec.sampling.choice == 0) choices_.Observe(sequence.spec.choices);
}

void VllmMetrics::Publish(const Scheduler& scheduler, int running, double kv_usage) {
  running_.Set(running);
  waiting_.Set(static_cast<double>(scheduler.sequences().size()) - running);
  kv_usage_.Set(kv_usage);
  metrics::RaiseTo(preemptions_, static_cast<double>(scheduler.preemptions()));
  metrics::RaiseTo(cache_queries_, static_cast<double>(scheduler.cache_query_tokens()));
  metrics::RaiseTo(cache_hits_, static_cast<double>(scheduler.cache_hit_tokens()));
  if (scheduler.speculation() != nullptr) Publish(scheduler.speculation()->stats());
  for (metrics::LoopSeries* series :
       {&iteration_tokens_, &first_token_, &inter_token_, &per_output_token_, &e2e_, &queue_,
        &prefill_, &decode_, &inference_, &prompt_length_, &generation_length_, &max_generation_,
        &longest_choice_, &choices_}) {
    series->Publish();
  }
}

}  // namespace bottega
