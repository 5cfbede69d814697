#include "gateway/shaped_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega::gateway {
namespace {

absl::Status Invalid(std::string_view name, std::string_view message) {
  return MakeError(Reason::kInvalidValue, message, name);
}

bool IsArrayOfNumbers(const Json& value) {
  return value.is_array() && !value.empty() && value.front().is_number();
}

// Decimal digits and nothing else, one spelling for one id.
std::optional<int32_t> TokenIdOf(const std::string& text, int64_t vocab_size) {
  const bool digits = !text.empty() && std::ranges::all_of(text, [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c));
  });
  int32_t id = 0;
  if (!digits || (text.size() > 1 && text[0] == '0') || !absl::SimpleAtoi(text, &id) ||
      id >= vocab_size) {
    return std::nullopt;
  }
  return id;
}

absl::Status ReadFlag(std::string_view name, const Json& value, bool& flag) {
  if (value.is_null()) return absl::OkStatus();
  if (!value.is_boolean()) return WrongType(name, "a boolean", value);
  flag = value.get<bool>();
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTokenIds(std::string_view name, const Json& value, int64_t vocab_size,
                          std::vector<int32_t>& ids) {
  if (!value.is_array()) return WrongType(name, "an array of token ids", value);
  ids.reserve(value.size());
  for (const Json& item : value) {
    if (!item.is_number()) return WrongType(name, "an array of token ids", item);
    const std::optional<int64_t> id = AsInteger(item);
    if (!id || *id < 0 || *id >= vocab_size) {
      return Invalid(name, fmt::format("token ids in `{}` must be integers from 0 to {}", name,
                                       vocab_size - 1));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return absl::OkStatus();
}

// A string, token ids, or a list of either.
absl::Status ReadPrompt(GenerateRequest& request, const Json& value, const RequestBounds& bounds) {
  if (value.is_string()) {
    request.prompts.emplace_back(value.get<std::string>());
    return absl::OkStatus();
  }
  if (!value.is_array())
    return WrongType("prompt", "a string, token ids, or a list of those", value);
  if (value.empty()) return Invalid("prompt", "`prompt` is empty");
  if (IsArrayOfNumbers(value)) {
    std::vector<int32_t> ids;
    RETURN_IF_ERROR(ReadTokenIds("prompt", value, bounds.vocab_size, ids));
    request.prompts.emplace_back(std::move(ids));
    return absl::OkStatus();
  }
  if (value.size() > limits::kPromptsMax) {
    return Invalid("prompt",
                   fmt::format("`prompt` may hold at most {} prompts", limits::kPromptsMax));
  }
  for (const Json& item : value) {
    if (item.is_string()) {
      request.prompts.emplace_back(item.get<std::string>());
      continue;
    }
    if (!IsArrayOfNumbers(item)) {
      return WrongType("prompt", "a string, token ids, or a list of those", item);
    }
    std::vector<int32_t> ids;
    RETURN_IF_ERROR(ReadTokenIds("prompt", item, bounds.vocab_size, ids));
    request.prompts.emplace_back(std::move(ids));
  }
  return absl::OkStatus();
}

absl::Status ReadStop(GenerateRequest& request, const Json& value, const RequestBounds&) {
  std::vector<const Json*> items;
  if (value.is_string()) {
    items.push_back(&value);
  } else if (value.is_array()) {
    for (const Json& item : value) items.push_back(&item);
  } else {
    return WrongType("stop", "a string or an array of strings", value);
  }
  if (items.size() > limits::kStopStringsMax) {
    return Invalid("stop",
                   fmt::format("`stop` may hold at most {} strings", limits::kStopStringsMax));
  }
  for (const Json* item : items) {
    if (!item->is_string()) return WrongType("stop", "a string or an array of strings", *item);
    const std::string& text = item->get_ref<const std::string&>();
    if (text.empty() || text.size() > limits::kStopStringBytesMax) {
      return Invalid("stop", fmt::format("strings in `stop` must be of 1 to {} bytes",
                                         limits::kStopStringBytesMax));
    }
    request.stop.push_back(text);
  }
  return absl::OkStatus();
}

absl::Status ReadStopTokenIds(GenerateRequest& request, const Json& value,
                              const RequestBounds& bounds) {
  if (value.is_array() && value.size() > limits::kStopIdsMax) {
    return Invalid("stop_token_ids",
                   fmt::format("`stop_token_ids` may hold at most {} ids", limits::kStopIdsMax));
  }
  return ReadTokenIds("stop_token_ids", value, bounds.vocab_size, request.stop_token_ids);
}

// An object of token ids, which are strings there, and numbers.
absl::Status ReadLogitBias(GenerateRequest& request, const Json& value,
                           const RequestBounds& bounds) {
  constexpr std::string_view kName = "logit_bias";
  if (!value.is_object()) return WrongType(kName, "an object of token ids and numbers", value);
  if (value.size() > limits::kLogitBiasMax) {
    return Invalid(kName,
                   fmt::format("`{}` may hold at most {} entries", kName, limits::kLogitBiasMax));
  }
  for (const auto& [key, bias] : value.items()) {
    const std::optional<int32_t> id = TokenIdOf(key, bounds.vocab_size);
    if (!id) {
      return Invalid(kName, fmt::format("keys of `{}` must be token ids from \"0\" to \"{}\"",
                                        kName, bounds.vocab_size - 1));
    }
    if (!bias.is_number()) return WrongType(kName, "an object of token ids and numbers", bias);
    const double number = bias.get<double>();
    if (!(std::abs(number) <= limits::kLogitBiasMost)) {  // NaN too
      return Invalid(kName, fmt::format("values of `{0}` must be from -{1} to {1}", kName,
                                        limits::kLogitBiasMost));
    }
    request.logit_bias.emplace_back(*id, number);
  }
  std::ranges::sort(request.logit_bias);
  return absl::OkStatus();
}

absl::Status ReadAllowedTokenIds(GenerateRequest& request, const Json& value,
                                 const RequestBounds& bounds) {
  constexpr std::string_view kName = "allowed_token_ids";
  std::vector<int32_t>& ids = request.allowed_token_ids;
  RETURN_IF_ERROR(ReadTokenIds(kName, value, bounds.vocab_size, ids));
  if (ids.empty()) return Invalid(kName, fmt::format("`{}` is empty", kName));
  std::ranges::sort(ids);
  ids.erase(std::ranges::unique(ids).begin(), ids.end());
  return absl::OkStatus();
}

absl::Status ReadBadWords(GenerateRequest& request, const Json& value, const RequestBounds&) {
  constexpr std::string_view kName = "bad_words";
  if (!value.is_array()) return WrongType(kName, "an array of strings", value);
  if (value.size() > limits::kBadWordsMax) {
    return Invalid(kName,
                   fmt::format("`{}` may hold at most {} strings", kName, limits::kBadWordsMax));
  }
  for (const Json& item : value) {
    if (!item.is_string()) return WrongType(kName, "an array of strings", item);
    const std::string& text = item.get_ref<const std::string&>();
    // A word is looked for with and without a space before it: what is only space is no word.
    if (absl::StripLeadingAsciiWhitespace(text).empty() || text.size() > limits::kBadWordBytesMax) {
      return Invalid(kName, fmt::format("strings in `{}` must be of 1 to {} bytes, not all spaces",
                                        kName, limits::kBadWordBytesMax));
    }
    request.bad_words.push_back(text);
  }
  return absl::OkStatus();
}

absl::Status ReadStreamOptions(GenerateRequest& request, const Json& value, const RequestBounds&) {
  if (!value.is_object()) return WrongType("stream_options", "an object", value);
  for (const auto& [name, flag] : value.items()) {
    if (name == "include_usage") {
      RETURN_IF_ERROR(ReadFlag("stream_options.include_usage", flag, request.include_usage));
    } else if (name == "continuous_usage_stats") {
      RETURN_IF_ERROR(
          ReadFlag("stream_options.continuous_usage_stats", flag, request.continuous_usage));
    } else {
      request.ignored_fields.push_back("stream_options." + name);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadResponseFormat(GenerateRequest&, const Json& value, const RequestBounds&) {
  if (!value.is_object()) return WrongType("response_format", "an object", value);
  const auto type = value.find("type");
  if (type == value.end() || !type->is_string()) {
    return Invalid("response_format.type", "`response_format.type` must be a string");
  }
  const std::string& name = type->get_ref<const std::string&>();
  if (name == "text") return absl::OkStatus();
  if (name == "json_object" || name == "json_schema") {
    return MakeError(Reason::kUnsupportedParameter,
                     fmt::format("`response_format` of type {} is not supported", name),
                     "response_format");
  }
  return Invalid("response_format.type",
                 "`response_format.type` must be text, json_object or json_schema");
}

absl::Status ReadTemplateKwargs(GenerateRequest& request, const Json& value, const RequestBounds&) {
  constexpr std::string_view kReserved[] = {"messages", "tools", "chat_template",
                                            "add_generation_prompt"};
  if (!value.is_object()) return WrongType("chat_template_kwargs", "an object", value);
  for (const auto& [name, item] : value.items()) {
    const std::string full = "chat_template_kwargs." + name;
    if (std::ranges::find(kReserved, name) != std::end(kReserved)) {
      return Invalid(full, fmt::format("`{}` is not a template argument", name));
    }
    if (item.is_structured()) return WrongType(full, "a scalar", item);
  }
  request.template_kwargs = value;
  return absl::OkStatus();
}

absl::Status ReadReasoningEffort(GenerateRequest& request, const Json& value,
                                 const RequestBounds&) {
  constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
  if (!value.is_string()) return WrongType("reasoning_effort", "a string", value);
  request.reasoning_effort = value.get<std::string>();
  if (std::ranges::find(kEfforts, request.reasoning_effort) == std::end(kEfforts)) {
    return Invalid("reasoning_effort",
                   "`reasoning_effort` must be none, minimal, low, medium, high or xhigh");
  }
  return absl::OkStatus();
}

bool IsRequestId(std::string_view text) {
  return !text.empty() && text.size() <= limits::kRequestIdCharsMax &&
         std::ranges::all_of(text, [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' ||
                  c == '-';
         });
}

absl::Status ReadRequestId(GenerateRequest& request, const Json& value, const RequestBounds&) {
  if (!value.is_string()) return WrongType("request_id", "a string", value);
  request.request_id = value.get<std::string>();
  if (!IsRequestId(request.request_id)) {
    return Invalid("request_id",
                   fmt::format("`request_id` must be of 1 to {} characters A-Z a-z 0-9 . _ -",
                               limits::kRequestIdCharsMax));
  }
  return absl::OkStatus();
}

}  // namespace bottega::gateway
