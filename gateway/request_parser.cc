#include "gateway/request_parser.h"

#include <fmt/format.h>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "gateway/messages.h"

namespace bottega::gateway {
namespace {

absl::Status Invalid(std::string_view name, std::string_view message) {
  return MakeError(Reason::kInvalidValue, message, name);
}

absl::Status CheckChat(GenerateRequest& request) {
  if (request.messages.is_null()) return Invalid("messages", "`messages` is missing");
  if (request.top_logprobs > 0 && !request.logprobs) {
    return Invalid("top_logprobs", "`top_logprobs` needs `logprobs`: true");
  }
  if (request.continue_final_message) {
    if (request.add_generation_prompt) {
      return Invalid("continue_final_message",
                     "`continue_final_message` needs `add_generation_prompt`: false");
    }
    if (request.messages.back()["role"] != "assistant") {
      return Invalid("continue_final_message",
                     "`continue_final_message` needs a last message of the assistant");
    }
  }
  if (request.thinking_budgets_differ) {
    return Invalid("thinking_token_budget",
                   "`thinking_token_budget`, `thinking_budget`, `thinking_budget_tokens` and "
                   "`reasoning_budget_tokens` are one: they must not differ");
  }
  if (request.thinking_budget == -1) request.thinking_budget.reset();
  return CheckToolChoice(request);
}

absl::Status CheckCompletion(const GenerateRequest& request) {
  if (request.prompts.empty()) return Invalid("prompt", "`prompt` is missing");
  if (request.best_of && *request.best_of != request.n) {
    return Invalid("best_of", "`best_of` must equal `n`");
  }
  if (request.prompts.size() * static_cast<size_t>(request.n) > limits::kSequencesPerRequestMax) {
    return Invalid(
        "n", fmt::format("prompts times `n` may be at most {}", limits::kSequencesPerRequestMax));
  }
  if (request.echo && request.logprobs) {
    return MakeError(Reason::kUnsupportedParameter, "`echo` with `logprobs` is not supported",
                     "echo");
  }
  return absl::OkStatus();
}

// Top-level switches of the reasoning mode become template arguments; explicit arguments win.
void AddReasoningArguments(GenerateRequest& request) {
  Json& kwargs = request.template_kwargs;
  auto set = [&kwargs](const char* name, bool value) {
    if (!kwargs.contains(name)) kwargs[name] = value;
  };
  if (request.enable_thinking) set("enable_thinking", *request.enable_thinking);
  const std::string& effort = request.reasoning_effort;
  if (effort == "none") set("enable_thinking", false);
  if (effort == "minimal" || effort == "low") set("enable_turbo", true);
}

}  // namespace

absl::StatusOr<GenerateRequest> ParseRequest(Api api, std::string_view body,
                                             const RequestBounds& bounds) {
  ASSIGN_OR_RETURN(Json json, ParseRequestJson(body));
  if (!json.is_object()) return Invalid("", "the body must be a JSON object");
  GenerateRequest request;
  request.api = api;
  for (const auto& [name, value] : json.items()) {
    const FieldRow* row = FindField(api, name);
    if (row == nullptr) {
      request.ignored_fields.push_back(name);
      continue;
    }
    RETURN_IF_ERROR(ReadField(*row, value, bounds, request));
  }
  const auto options = json.find("stream_options");
  if (options != json.end() && !options->is_null() && !request.stream) {
    return Invalid("stream_options", "`stream_options` needs `stream`: true");
  }
  if (request.max_completion_tokens) request.max_tokens = request.max_completion_tokens;
  if (request.max_tokens && request.min_tokens > *request.max_tokens) {
    return Invalid("min_tokens", "`min_tokens` is past `max_tokens`");
  }
  RETURN_IF_ERROR(api == Api::kChat ? CheckChat(request) : CheckCompletion(request));
  AddReasoningArguments(request);
  return request;
}

}  // namespace bottega::gateway
