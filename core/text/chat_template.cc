#include "core/text/chat_template.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "core/text/rust_call.h"
#include "nlohmann/json.hpp"

namespace bottega {

using nlohmann::json;
using text::OwnedBytes;
using text::SpanOf;
using text::StatusOf;

struct ChatTemplate::Impl {
  bottega_text_template* handle = nullptr;
  std::vector<std::string> variables;

  ~Impl() { bottega_text_template_free(handle); }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

// What a template may count on besides what the request says.
static std::string Defaults(const TemplateTokens& tokens) {
  json defaults = {{"tools", nullptr}, {"documents", nullptr}, {"add_generation_prompt", false}};
  auto set = [&](const char* name, const std::string& token) {
    if (!token.empty()) defaults[name] = token;
  };
  set("bos_token", tokens.bos_token);
  set("eos_token", tokens.eos_token);
  set("pad_token", tokens.pad_token);
  set("unk_token", tokens.unk_token);
  return defaults.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<ChatTemplate> ChatTemplate::Compile(std::string_view source, TemplateTokens tokens) {
  if (source.size() > limits::kChatTemplateBytesMax) {
    return MakeError(Reason::kModelRefused, absl::StrCat("chat template: ", source.size(),
                                                         " bytes, more than the limit of ",
                                                         limits::kChatTemplateBytesMax));
  }
  bottega_text_template_limits limits = {.fuel = limits::kTemplateFuel,
                                         .recursion = limits::kTemplateRecursionMax,
                                         .output_bytes_max = limits::kTemplateOutputBytesMax,
                                         .work_bytes_max = limits::kTemplateWorkBytesMax};
  auto impl = std::make_unique<Impl>();
  OwnedBytes message;
  std::string defaults = Defaults(tokens);
  RETURN_IF_ERROR(StatusOf(bottega_text_template_compile(SpanOf(source), SpanOf(defaults), limits,
                                                         &impl->handle, message.out()),
                           message));
  OwnedBytes names;
  RETURN_IF_ERROR(
      StatusOf(bottega_text_template_variables(impl->handle, names.out(), message.out()), message));
  impl->variables = absl::StrSplit(std::string(names.view()), '\n', absl::SkipEmpty());
  return ChatTemplate(std::move(impl));
}

absl::StatusOr<std::string> ChatTemplate::Render(std::string_view context_json) const {
  return RenderAt(context_json, absl::ToUnixSeconds(absl::Now()));
}

absl::StatusOr<std::string> ChatTemplate::RenderAt(std::string_view context_json,
                                                   int64_t now_s) const {
  OwnedBytes text, message;
  RETURN_IF_ERROR(StatusOf(bottega_text_template_render(impl_->handle, SpanOf(context_json), now_s,
                                                        text.out(), message.out()),
                           message));
  return std::string(text.view());
}

// Marks the end of the open message, to be found in the rendered text. Noncharacters: no content
// that is meant to be text has them.
constexpr std::string_view kOpenEnd = "\uFDD0open\uFDD1 ";

// The text of the last message: its content, or the last part that has text. Null if neither.
static nlohmann::ordered_json* OpenText(nlohmann::ordered_json& context) {
  auto messages = context.find("messages");
  if (messages == context.end() || !messages->is_array() || messages->empty()) return nullptr;
  auto& last = messages->back();
  if (!last.is_object() || !last.contains("content")) return nullptr;
  auto& content = last["content"];
  if (content.is_string()) return &content;
  if (!content.is_array()) return nullptr;
  for (auto part = content.rbegin(); part != content.rend(); ++part) {
    if (part->is_object() && part->contains("text") && (*part)["text"].is_string()) {
      return &(*part)["text"];
    }
  }
  return nullptr;
}

absl::StatusOr<std::string> ChatTemplate::RenderContinued(std::string_view context_json) const {
  auto context = nlohmann::ordered_json::parse(context_json, nullptr, /*allow_exceptions=*/false);
  nlohmann::ordered_json* open = context.is_object() ? OpenText(context) : nullptr;
  if (open == nullptr) {
    return MakeError(Reason::kInvalidValue, "the last message has no text to continue", "messages");
  }
  *open = open->get<std::string>().append(kOpenEnd);
  ASSIGN_OR_RETURN(std::string text, Render(context.dump()));
  std::string_view tag = kOpenEnd.substr(0, kOpenEnd.size() - 1);
  size_t at = text.rfind(tag);
  if (at == std::string::npos) {
    return MakeError(Reason::kInvalidValue,
                     "the chat template leaves out the message to be continued", "messages");
  }
  // A template that strips content took the tag's space; then it would have stripped the content's.
  bool stripped = text.compare(at, kOpenEnd.size(), kOpenEnd) != 0;
  text.resize(at);
  if (stripped) text.resize(absl::StripTrailingAsciiWhitespace(text).size());
  return text;
}

const std::vector<std::string>& ChatTemplate::variables() const { return impl_->variables; }

namespace {

absl::Status Refuse(const std::string& what) {
  return MakeError(Reason::kModelRefused, absl::StrCat("tokenizer_config.json: ", what));
}

absl::StatusOr<json> ParseConfig(std::string_view text) {
  if (text.size() > limits::kTokenizerBytesMax) return Refuse("too large");
  json config = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Refuse("not a JSON object");
  return config;
}

}  // namespace

absl::StatusOr<std::string> ChatTemplateOfTokenizerConfig(std::string_view tokenizer_config_json,
                                                          std::string_view name) {
  ASSIGN_OR_RETURN(json config, ParseConfig(tokenizer_config_json));
  auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return Refuse("no chat_template");
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return Refuse("chat_template is neither a string nor a list");
  for (const json& entry : *found) {
    if (!entry.is_object() || !entry.contains("name") || entry["name"] != name) continue;
    if (!entry.contains("template") || !entry["template"].is_string()) break;
    return entry["template"].get<std::string>();
  }
  return Refuse("chat_template has no entry named '" + std::string(name) + "'");
}

absl::StatusOr<TemplateTokens> TokensOfTokenizerConfig(std::string_view tokenizer_config_json) {
  ASSIGN_OR_RETURN(json config, ParseConfig(tokenizer_config_json));
  auto token = [&](const char* name) -> std::string {
    auto found = config.find(name);
    if (found == config.end()) return "";
    if (found->is_string()) return found->get<std::string>();
    if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
      return (*found)["content"].get<std::string>();
    }
    return "";
  };
  return TemplateTokens{.bos_token = token("bos_token"),
                        .eos_token = token("eos_token"),
                        .pad_token = token("pad_token"),
                        .unk_token = token("unk_token")};
}

}  // namespace bottega
