#include "gateway/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/ascii.h"
#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"
#include "gateway/error_body.h"
#include "gateway/plain_text.h"
#include "gateway/request_parser.h"

namespace bottega::gateway {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return Seconds(std::chrono::steady_clock::now() - start);
}

// Templates that do not go through a list of parts want one text.
void JoinParts(Json& messages) {
  for (Json& message : messages) {
    Json& content = message["content"];
    if (!content.is_array()) continue;
    std::string joined;
    for (const Json& part : content) {
      if (!joined.empty()) joined += '\n';
      joined += part["text"].get_ref<const std::string&>();
    }
    content = joined;
  }
}

Json TemplateContext(const GatewayConfig& config, const GenerateRequest& request, Json messages) {
  Json context = config.default_template_kwargs;
  for (const auto& [name, value] : request.template_kwargs.items()) context[name] = value;
  context["messages"] = std::move(messages);
  if (!request.tools.is_null()) context["tools"] = request.tools;
  return context;
}

// The text that a generation prompt (or the turn being continued) adds to the history decides where
// the answer starts; the history itself never does.
absl::StatusOr<ReasoningParser::Start> FindStart(const GatewayText& text, Json context,
                                                 const std::string& rendered,
                                                 const GenerateRequest& request) {
  if (!text.thinks()) return ReasoningParser::Start::kContent;
  if (!request.add_generation_prompt && !request.continue_final_message) {
    return ReasoningParser::Start::kDetect;
  }
  if (request.continue_final_message) {
    // What stands after the last thing that is not the assistant's: its turn so far.
    const Json& content = context["messages"].back()["content"];
    const std::string last = content.is_string() ? content.get<std::string>() : "";
    const ReasoningParser::Start start = StartAfter(last);
    return start == ReasoningParser::Start::kDetect ? ReasoningParser::Start::kContent : start;
  }
  context["add_generation_prompt"] = false;
  ASSIGN_OR_RETURN(const std::string history, text.Render(DumpJson(context)));
  size_t common = 0;
  while (common < history.size() && common < rendered.size() &&
         history[common] == rendered[common]) {
    ++common;
  }
  return StartAfter(std::string_view(rendered).substr(common));
}

absl::Status CheckFits(const ModelText& model, int64_t context, const GenerateRequest& request,
                       std::string_view text) {
  const size_t longest = std::max<size_t>(1, model.text->longest_token_bytes());
  const int64_t least = static_cast<int64_t>(text.size() / longest);
  if (least <= context) return absl::OkStatus();
  return ContextLengthExceeded(context, request.max_tokens.value_or(1), least);
}

absl::Status PrepareChat(const ModelText& model, const GatewayConfig& config, int64_t context,
                         PreparedRequest& prepared) {
  const GenerateRequest& request = prepared.request;
  const auto begin = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(RenderedChat chat, RenderChat(*model.text, config, request));
  prepared.render_seconds = SecondsSince(begin);
  RETURN_IF_ERROR(CheckFits(model, context, request, chat.text));
  const auto rendered = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodeChat(*model.text, chat));
  prepared.tokenize_seconds = SecondsSince(rendered);
  prepared.texts.push_back(std::move(chat.text));
  prepared.prompts.push_back(std::move(ids));
  prepared.start = chat.start;
  prepared.reads_tool_calls = !request.tools.is_null();
  // Of a thinking budget made with two calls: the reasoning is wanted as text, and what looks like
  // a call in it is none.
  for (const std::string& stop : request.stop) {
    if (stop.find(kThinkClose) == std::string::npos) continue;
    prepared.reads_tool_calls &= prepared.start == ReasoningParser::Start::kContent;
    prepared.start = ReasoningParser::Start::kContent;
  }
  const Json& last = request.messages.back();
  if (request.echo && last["role"] == "assistant" && last["content"].is_string()) {
    prepared.echoes.push_back(last["content"].get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status PrepareCompletion(const ModelText& model, int64_t context, PreparedRequest& prepared) {
  GenerateRequest& request = prepared.request;
  const auto begin = std::chrono::steady_clock::now();
  for (GenerateRequest::Prompt& prompt : request.prompts) {
    const std::string* raw = std::get_if<std::string>(&prompt);
    if (raw == nullptr) {
      auto& ids = std::get<std::vector<int32_t>>(prompt);
      if (request.echo) {
        ASSIGN_OR_RETURN(std::string echo, model.text->Decode(ids, request.skip_special_tokens));
        prepared.echoes.push_back(std::move(echo));
      }
      prepared.texts.emplace_back();
      prepared.prompts.push_back(std::move(ids));
      continue;
    }
    RETURN_IF_ERROR(CheckFits(model, context, request, *raw));
    const GatewayText::EncodeAs as{.add_special_tokens = request.add_special_tokens.value_or(true)};
    ASSIGN_OR_RETURN(std::vector<int32_t> ids, model.text->Encode(*raw, as));
    if (request.echo) prepared.echoes.push_back(*raw);
    prepared.texts.push_back(*raw);
    prepared.prompts.push_back(std::move(ids));
  }
  prepared.tokenize_seconds = SecondsSince(begin);
  return absl::OkStatus();
}

// As vLLM does: a word as a text begins with it, and with a space before it where that is as long
// and begins with another token.
absl::Status EncodeBadWords(const GatewayText& text, PreparedRequest& prepared) {
  for (const std::string& word : prepared.request.bad_words) {
    const std::string stripped(absl::StripLeadingAsciiWhitespace(word));
    ASSIGN_OR_RETURN(std::vector<int32_t> plain, text.Encode(stripped, {}));
    ASSIGN_OR_RETURN(std::vector<int32_t> spaced, text.Encode(" " + stripped, {}));
    if (plain.empty() || plain.size() > limits::kBadWordTokensMax) {
      return MakeError(Reason::kInvalidValue,
                       fmt::format("strings in `bad_words` must be of 1 to {} tokens",
                                   limits::kBadWordTokensMax),
                       "bad_words");
    }
    const bool differs = spaced.size() == plain.size() && spaced[0] != plain[0];
    prepared.bad_words.push_back(std::move(plain));
    if (differs) prepared.bad_words.push_back(std::move(spaced));
  }
  return absl::OkStatus();
}

absl::Status CheckThinkingBudget(const GatewayText& text, const PreparedRequest& prepared) {
  if (!prepared.request.thinking_budget) return absl::OkStatus();
  const bool tokens = text.IdOf(kThinkOpen).has_value() && text.IdOf(kThinkClose).has_value();
  if (tokens) return absl::OkStatus();
  return MakeError(Reason::kUnsupportedParameter,
                   fmt::format("a thinking budget needs a model with the tokens {} and {}",
                               kThinkOpen, kThinkClose),
                   "thinking_token_budget");
}

// Not every contradiction can be foreseen: where a longer bad word takes the last token that is
// left, the request ends then.
absl::Status CheckSomethingAllowed(const ModelText& model, const PreparedRequest& prepared) {
  const GenerateRequest& request = prepared.request;
  if (request.allowed_token_ids.empty()) return absl::OkStatus();
  const auto forbidden = [&](int32_t id) {
    if (std::ranges::find(prepared.bad_words, std::vector{id}) != prepared.bad_words.end()) {
      return true;
    }
    const auto ends = [id](const std::vector<int32_t>& ids) {
      return std::ranges::find(ids, id) != ids.end();
    };
    return request.min_tokens > 0 && (ends(model.eos_ids) || ends(request.stop_token_ids));
  };
  if (!std::ranges::all_of(request.allowed_token_ids, forbidden)) return absl::OkStatus();
  return MakeError(Reason::kInvalidValue,
                   "`bad_words` or `min_tokens` forbid all of `allowed_token_ids`",
                   "allowed_token_ids");
}

}  // namespace

absl::StatusOr<RenderedChat> RenderChat(const GatewayText& text, const GatewayConfig& config,
                                        const GenerateRequest& request) {
  Json messages = request.messages;
  if (!text.template_reads_parts()) JoinParts(messages);
  PlainTextMarks marks(text.added_tokens());
  marks.Mark(messages);
  Json context = TemplateContext(config, request, std::move(messages));
  context["add_generation_prompt"] = request.add_generation_prompt;
  const std::string json = DumpJson(context);
  absl::StatusOr<std::string> rendered =
      request.continue_final_message ? text.RenderContinued(json) : text.Render(json);
  if (!rendered.ok()) return rendered.status();
  RenderedChat chat;
  ASSIGN_OR_RETURN(chat.start, FindStart(text, std::move(context), *rendered, request));
  chat.text = marks.Restore(*rendered);
  if (marks.any()) chat.pieces = marks.Split(*rendered);
  return chat;
}

absl::StatusOr<std::vector<int32_t>> EncodeChat(const GatewayText& text, const RenderedChat& chat) {
  if (chat.pieces.empty()) return text.Encode(chat.text, {});
  std::vector<int32_t> ids;
  for (size_t i = 0; i < chat.pieces.size(); ++i) {
    const GatewayText::EncodeAs as{.parse_special_tokens = i % 2 == 0};
    ASSIGN_OR_RETURN(std::vector<int32_t> piece, text.Encode(chat.pieces[i], as));
    ids.insert(ids.end(), piece.begin(), piece.end());
  }
  return ids;
}

int64_t OutputTokens(const GenerateRequest& request, int64_t context, size_t prompt_tokens) {
  return request.max_tokens.value_or(context - static_cast<int64_t>(prompt_tokens));
}

absl::StatusOr<PreparedRequest> PrepareRequest(const ModelText& model, const GatewayConfig& config,
                                               Api api, const std::string& body, int64_t context) {
  PreparedRequest prepared;
  const auto begin = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(prepared.request,
                   ParseRequest(api, body, RequestBounds{.vocab_size = model.vocab_size}));
  prepared.parse_seconds = SecondsSince(begin);
  const GenerateRequest& request = prepared.request;
  if (request.model && *request.model != model.name) return ModelNotFound(*request.model);
  RETURN_IF_ERROR(api == Api::kChat ? PrepareChat(model, config, context, prepared)
                                    : PrepareCompletion(model, context, prepared));
  RETURN_IF_ERROR(EncodeBadWords(*model.text, prepared));
  RETURN_IF_ERROR(CheckSomethingAllowed(model, prepared));
  RETURN_IF_ERROR(CheckThinkingBudget(*model.text, prepared));
  for (const std::vector<int32_t>& ids : prepared.prompts) {
    if (ids.empty()) {
      return MakeError(Reason::kInvalidValue, "the prompt holds no tokens",
                       api == Api::kChat ? "messages" : "prompt");
    }
    const int64_t output = request.max_tokens.value_or(1);
    if (static_cast<int64_t>(ids.size()) + output > context) {
      return ContextLengthExceeded(context, output, static_cast<int64_t>(ids.size()));
    }
  }
  return prepared;
}

}  // namespace bottega::gateway
