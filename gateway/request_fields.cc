#include "gateway/request_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "gateway/messages.h"
#include "gateway/shaped_fields.h"

namespace bottega::gateway {
namespace {

constexpr uint8_t kBoth = 3;
constexpr uint8_t kChatOnly = static_cast<uint8_t>(Api::kChat);
constexpr uint8_t kCompletionOnly = static_cast<uint8_t>(Api::kCompletion);
constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

using Store = void (*)(GenerateRequest&, const Json&);
using Read = absl::Status (*)(GenerateRequest&, const Json&, const RequestBounds&);

constexpr FieldRow Integer(std::string_view name, int64_t least, int64_t most, Store store,
                           uint8_t apis = kBoth) {
  return {.name = name,
          .apis = apis,
          .kind = FieldKind::kInteger,
          .least = least,
          .most = most,
          .store = store};
}
constexpr FieldRow Number(std::string_view name, double low, double high, Store store,
                          bool low_open = false) {
  return {.name = name,
          .kind = FieldKind::kNumber,
          .low = low,
          .high = high,
          .low_open = low_open,
          .store = store};
}
constexpr FieldRow Boolean(std::string_view name, Store store, uint8_t apis = kBoth) {
  return {.name = name, .apis = apis, .kind = FieldKind::kBoolean, .store = store};
}
constexpr FieldRow Text(std::string_view name, size_t bytes_max, Store store,
                        uint8_t apis = kBoth) {
  return {.name = name,
          .apis = apis,
          .kind = FieldKind::kText,
          .most = static_cast<int64_t>(bytes_max),
          .store = store};
}
constexpr FieldRow Shaped(std::string_view name, Read read, uint8_t apis = kBoth) {
  return {.name = name, .apis = apis, .kind = FieldKind::kShaped, .read = read};
}
constexpr FieldRow NoEffect(std::string_view name) { return {.name = name}; }
constexpr FieldRow NotYet(std::string_view name, std::string_view neutral = "null",
                          uint8_t apis = kBoth) {
  return {.name = name, .apis = apis, .kind = FieldKind::kNotYet, .neutral = neutral};
}

using R = GenerateRequest;
void Discard(R&, const Json&) {}

// Several names of one thing. -1: none.
constexpr FieldRow ThinkingBudget(std::string_view name) {
  return Integer(
      name, -1, kInt32Max,
      [](R& r, const Json& v) {
        const int64_t tokens = *AsInteger(v);
        r.thinking_budgets_differ |= r.thinking_budget.value_or(tokens) != tokens;
        r.thinking_budget = tokens;
      },
      kChatOnly);
}

// clang-format off
constexpr FieldRow kTable[] = {
    Text("model", 1024, [](R& r, const Json& v) { r.model = v.get<std::string>(); }),
    Shaped("messages", ReadMessages, kChatOnly),
    Shaped("prompt", ReadPrompt, kCompletionOnly),
    Shaped("tools", ReadTools, kChatOnly),
    Shaped("tool_choice", ReadToolChoice, kChatOnly),
    Boolean("parallel_tool_calls",
            [](R& r, const Json& v) { r.parallel_tool_calls = v.get<bool>(); }, kChatOnly),
    Shaped("response_format", ReadResponseFormat),

    Boolean("stream", [](R& r, const Json& v) { r.stream = v.get<bool>(); }),
    Shaped("stream_options", ReadStreamOptions),

    Integer("max_tokens", 1, kInt32Max, [](R& r, const Json& v) { r.max_tokens = AsInteger(v); }),
    Integer("max_completion_tokens", 1, kInt32Max,
            [](R& r, const Json& v) { r.max_completion_tokens = AsInteger(v); }),
    Integer("min_tokens", 0, kInt32Max, [](R& r, const Json& v) { r.min_tokens = *AsInteger(v); }),
    Number("temperature", 0, 2, [](R& r, const Json& v) { r.temperature = v.get<double>(); }),
    Number("top_p", 0, 1, [](R& r, const Json& v) { r.top_p = v.get<double>(); }, true),
    Number("min_p", 0, 1, [](R& r, const Json& v) { r.min_p = v.get<double>(); }),
    Integer("top_k", -1, kInt32Max, [](R& r, const Json& v) { r.top_k = AsInteger(v); }),
    Number("frequency_penalty", -2, 2,
           [](R& r, const Json& v) { r.frequency_penalty = v.get<double>(); }),
    Number("presence_penalty", -2, 2,
           [](R& r, const Json& v) { r.presence_penalty = v.get<double>(); }),
    Number("repetition_penalty", 0, 10,
           [](R& r, const Json& v) { r.repetition_penalty = v.get<double>(); }, true),
    Shaped("logit_bias", ReadLogitBias),
    Shaped("allowed_token_ids", ReadAllowedTokenIds),
    Shaped("bad_words", ReadBadWords),
    Integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(),
            [](R& r, const Json& v) { r.seed = AsInteger(v); }),
    Integer("n", 1, limits::kChoicesMax,
            [](R& r, const Json& v) { r.n = static_cast<int>(*AsInteger(v)); }),
    Integer("best_of", 1, limits::kChoicesMax, [](R& r, const Json& v) { r.best_of = AsInteger(v); },
            kCompletionOnly),

    Shaped("stop", ReadStop),
    Shaped("stop_token_ids", ReadStopTokenIds),
    Boolean("ignore_eos", [](R& r, const Json& v) { r.ignore_eos = v.get<bool>(); }),
    Boolean("include_stop_str_in_output",
            [](R& r, const Json& v) { r.include_stop_in_output = v.get<bool>(); }),

    Boolean("logprobs", [](R& r, const Json& v) { r.logprobs = v.get<bool>(); }, kChatOnly),
    Integer("logprobs", 0, limits::kTopLogprobsMax,
            [](R& r, const Json& v) {
              r.logprobs = true;
              r.top_logprobs = static_cast<int>(*AsInteger(v));
            },
            kCompletionOnly),
    Integer("top_logprobs", 0, limits::kTopLogprobsMax,
            [](R& r, const Json& v) { r.top_logprobs = static_cast<int>(*AsInteger(v)); },
            kChatOnly),
    Boolean("skip_special_tokens",
            [](R& r, const Json& v) { r.skip_special_tokens = v.get<bool>(); }),
    Boolean("return_token_ids", [](R& r, const Json& v) { r.return_token_ids = v.get<bool>(); }),
    Boolean("include_reasoning", [](R& r, const Json& v) { r.include_reasoning = v.get<bool>(); },
            kChatOnly),
    Boolean("echo", [](R& r, const Json& v) { r.echo = v.get<bool>(); }),

    Shaped("chat_template_kwargs", ReadTemplateKwargs, kChatOnly),
    Boolean("enable_thinking", [](R& r, const Json& v) { r.enable_thinking = v.get<bool>(); },
            kChatOnly),
    Shaped("reasoning_effort", ReadReasoningEffort, kChatOnly),
    ThinkingBudget("thinking_token_budget"), ThinkingBudget("thinking_budget"),
    ThinkingBudget("thinking_budget_tokens"), ThinkingBudget("reasoning_budget_tokens"),
    Boolean("add_generation_prompt",
            [](R& r, const Json& v) { r.add_generation_prompt = v.get<bool>(); }, kChatOnly),
    Boolean("continue_final_message",
            [](R& r, const Json& v) { r.continue_final_message = v.get<bool>(); }, kChatOnly),
    Boolean("add_special_tokens", [](R& r, const Json& v) { r.add_special_tokens = v.get<bool>(); }),
    Shaped("request_id", ReadRequestId),
    Shaped("rid", ReadRequestId),
    Text("cache_salt", limits::kCacheSaltCharsMax,
         [](R& r, const Json& v) { r.cache_salt = v.get<std::string>(); }),
    Integer("priority", std::numeric_limits<int32_t>::min(), kInt32Max,
            [](R& r, const Json& v) { r.priority = static_cast<int32_t>(*AsInteger(v)); }),
    Text("session_id", limits::kRequestIdCharsMax, Discard),

    NoEffect("user"), NoEffect("store"), NoEffect("metadata"), NoEffect("service_tier"),
    NoEffect("prompt_cache_key"), NoEffect("safety_identifier"), NoEffect("verbosity"),
    NoEffect("prediction"),

    NotYet("prompt_logprobs"), NotYet("truncate_prompt_tokens"),
    NotYet("structured_outputs"), NotYet("guided_json"), NotYet("guided_regex"),
    NotYet("guided_choice"), NotYet("guided_grammar"), NotYet("regex"), NotYet("ebnf"),
    NotYet("json_schema"),
    NotYet("thinking_token_budget", "-1", kCompletionOnly),
    NotYet("thinking_budget", "-1", kCompletionOnly),
    NotYet("thinking_budget_tokens", "-1", kCompletionOnly),
    NotYet("reasoning_budget_tokens", "-1", kCompletionOnly),
    NotYet("chat_template", "null", kChatOnly), NotYet("functions", "null", kChatOnly),
    NotYet("function_call", "null", kChatOnly), NotYet("suffix", "\"\"", kCompletionOnly),
    NotYet("use_beam_search", "false"),
};
// clang-format on

absl::Status PastLimit(const FieldRow& row, std::string_view range) {
  return MakeError(Reason::kInvalidValue, fmt::format("`{}` must be {}", row.name, range),
                   row.name);
}

absl::Status CheckInteger(const FieldRow& row, const Json& value) {
  if (!value.is_number()) return WrongType(row.name, "an integer", value);
  const std::optional<int64_t> integer = AsInteger(value);
  if (!integer && value.is_number_float() &&
      std::floor(value.get<double>()) != value.get<double>()) {
    return WrongType(row.name, "an integer", value);
  }
  if (!integer || *integer < row.least || *integer > row.most) {
    return PastLimit(row, fmt::format("an integer from {} to {}", row.least, row.most));
  }
  return absl::OkStatus();
}

absl::Status CheckNumber(const FieldRow& row, const Json& value) {
  if (!value.is_number()) return WrongType(row.name, "a number", value);
  const double number = value.get<double>();
  const bool in_range = (row.low_open ? number > row.low : number >= row.low) && number <= row.high;
  if (!in_range) {  // NaN too
    return PastLimit(row, fmt::format("{} {} and at most {}", row.low_open ? "above" : "at least",
                                      row.low, row.high));
  }
  return absl::OkStatus();
}

bool IsNeutral(const FieldRow& row, const Json& value) {
  return value == Json::parse(row.neutral, nullptr, false);
}

}  // namespace

std::span<const FieldRow> FieldTable() { return kTable; }

const FieldRow* FindField(Api api, std::string_view name) {
  using Index = std::unordered_map<std::string_view, const FieldRow*>;
  static const auto* indexes = [] {
    auto* made = new std::unordered_map<uint8_t, Index>;
    for (Api a : {Api::kChat, Api::kCompletion}) {
      for (const FieldRow& row : kTable) {
        if ((row.apis & static_cast<uint8_t>(a)) != 0) {
          (*made)[static_cast<uint8_t>(a)][row.name] = &row;
        }
      }
    }
    return made;
  }();
  const Index& index = indexes->at(static_cast<uint8_t>(api));
  auto found = index.find(name);
  return found == index.end() ? nullptr : found->second;
}

std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {  // 5.0 is 5; past 2^53 a double no longer says which integer it is
    const double number = value.get<double>();
    constexpr double kExact = 9007199254740992.0;
    if (std::floor(number) == number && std::abs(number) <= kExact) {
      return static_cast<int64_t>(number);
    }
  }
  return std::nullopt;
}

absl::Status WrongType(std::string_view name, std::string_view wanted, const Json& value) {
  return MakeError(Reason::kInvalidValue,
                   fmt::format("`{}` must be {}, not {}", name, wanted, KindOf(value)), name);
}

absl::Status ReadField(const FieldRow& row, const Json& value, const RequestBounds& bounds,
                       GenerateRequest& request) {
  if (value.is_null()) return absl::OkStatus();
  absl::Status checked;
  switch (row.kind) {
    case FieldKind::kInteger:
      checked = CheckInteger(row, value);
      break;
    case FieldKind::kNumber:
      checked = CheckNumber(row, value);
      break;
    case FieldKind::kBoolean:
      if (!value.is_boolean()) checked = WrongType(row.name, "a boolean", value);
      break;
    case FieldKind::kText:
      if (!value.is_string()) {
        checked = WrongType(row.name, "a string", value);
      } else if (static_cast<int64_t>(value.get_ref<const std::string&>().size()) > row.most) {
        checked = PastLimit(row, fmt::format("a string of at most {} bytes", row.most));
      }
      break;
    case FieldKind::kShaped:
      return row.read(request, value, bounds);
    case FieldKind::kNoEffect:
      return absl::OkStatus();
    case FieldKind::kNotYet:
      if (IsNeutral(row, value)) return absl::OkStatus();
      return MakeError(Reason::kUnsupportedParameter,
                       fmt::format("`{}` is not supported", row.name), row.name);
  }
  if (checked.ok()) row.store(request, value);
  return checked;
}

}  // namespace bottega::gateway
