#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gateway/json.h"

namespace bottega::gateway {

enum class Api : uint8_t { kChat = 1, kCompletion = 2 };

// One body of /v1/chat/completions or /v1/completions: every value is of the right type and in
// range. What is absent is filled from the model's defaults later.
struct GenerateRequest {
  Api api = Api::kChat;
  std::optional<std::string> model;
  std::string request_id;  // the body's own; empty: none

  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;

  // Sampling.
  std::optional<double> temperature, top_p, min_p;
  std::optional<int64_t> top_k, seed;
  int n = 1;
  std::optional<int64_t> max_tokens;  // as sent; max_completion_tokens wins
  std::optional<int64_t> max_completion_tokens;
  int64_t min_tokens = 0;

  // Edits of the logits.
  std::optional<double> repetition_penalty;
  double frequency_penalty = 0, presence_penalty = 0;
  std::vector<std::pair<int32_t, double>> logit_bias;  // ids ascend
  std::vector<int32_t> allowed_token_ids;              // ascending; empty: all
  std::vector<std::string> bad_words;
  std::optional<int64_t> thinking_budget;  // tokens
  bool thinking_budgets_differ = false;    // by the names that it has

  // Ends.
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_in_output = false;

  // What is shown.
  bool logprobs = false;
  int top_logprobs = 0;
  bool skip_special_tokens = true;
  bool return_token_ids = false;
  bool include_reasoning = true;
  bool echo = false;

  // Chat.
  Json messages;  // array
  Json tools;     // array or null; null too where tool_choice is none
  Json tool_choice;
  bool parallel_tool_calls = true;
  Json template_kwargs = Json::object();  // what the template is given beside the messages
  std::optional<bool> enable_thinking;    // the top-level field
  std::string reasoning_effort;
  bool add_generation_prompt = true;
  bool continue_final_message = false;

  // Completions.
  using Prompt = std::variant<std::string, std::vector<int32_t>>;
  std::vector<Prompt> prompts;
  std::optional<int64_t> best_of;

  std::optional<bool> add_special_tokens;

  int32_t priority = 0;    // the least goes first, as in vLLM
  std::string cache_salt;  // prefixes are shared between requests of the same one only

  std::vector<std::string> ignored_fields;  // names nobody here knows
};

}  // namespace bottega::gateway
