#include "cli/chat_client.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/status.h"
#include "nlohmann/json.hpp"

namespace bottega {
namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kReadySilence = std::chrono::seconds(5);
constexpr std::chrono::milliseconds kLoadingLook{200};

Json Parse(std::string_view text) { return Json::parse(text, nullptr, false); }

// `value[name]` if it is there and a string.
std::string TextAt(const Json& value, const char* name) {
  if (!value.is_object()) return {};
  const auto field = value.find(name);
  return field != value.end() && field->is_string() ? field->get<std::string>() : "";
}

const Json& At(const Json& value, const char* name) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto field = value.find(name);
  return field == value.end() ? kNull : *field;
}

// The message of an error body; FastAPI's form too, for servers of other makes.
std::string ErrorMessage(const Json& body) {
  for (const char* name : {"error", "detail", "message"}) {
    const Json& field = At(body, name);
    if (field.is_string()) return field.get<std::string>();
    if (std::string message = TextAt(field, "message"); !message.empty()) return message;
  }
  return {};
}

absl::Status ErrorOf(const HttpReply& reply) {
  std::string message = ErrorMessage(Parse(reply.body));
  if (message.empty()) message = "no reason given";
  return absl::InternalError(fmt::format("{} (HTTP {})", message, reply.status));
}

absl::Status WithHint(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return status;
  return absl::UnavailableError(
      fmt::format("{}. Is a server running? `bottega serve DIR` starts one; --url names another.",
                  std::string(status.message())));
}

// How far a server is that answers /ready with 503 `loading`; nothing: it does not load.
std::optional<double> LoadOf(const HttpReply& reply) {
  if (reply.status != 503) return std::nullopt;
  const Json body = Parse(reply.body);
  if (TextAt(body, "status") != "loading") return std::nullopt;
  const Json& progress = At(body, "progress");
  return progress.is_number() ? std::clamp(progress.get<double>(), 0.0, 1.0) : 0.0;
}

Json TemplateKwargs(const ChatSettings& settings) {
  Json kwargs = Json::object();
  if (!settings.think.empty()) {
    kwargs["enable_thinking"] = settings.think != "off";
    kwargs["enable_turbo"] = settings.think == "turbo";
  }
  if (!settings.lang.empty()) kwargs["reasoning_lang"] = settings.lang;
  return kwargs;
}

}  // namespace

std::string ChatRequestBody(const ChatSettings& settings,
                            const std::vector<ChatMessage>& messages) {
  Json body = Json::object();
  if (!settings.model.empty()) body["model"] = settings.model;
  body["messages"] = Json::array();
  if (!settings.system.empty()) {
    body["messages"].push_back({{"role", "system"}, {"content", settings.system}});
  }
  for (const ChatMessage& message : messages) {
    body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  // Usage with every chunk: also known of an answer that is stopped.
  if (settings.stats) body["stream_options"]["continuous_usage_stats"] = true;
  if (settings.temperature) body["temperature"] = *settings.temperature;
  if (settings.max_tokens) body["max_completion_tokens"] = *settings.max_tokens;
  if (settings.seed) body["seed"] = *settings.seed;
  if (Json kwargs = TemplateKwargs(settings); !kwargs.empty()) {
    body["chat_template_kwargs"] = std::move(kwargs);
  }
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

AnswerStream::AnswerStream(AnswerEvents events, ChatAnswer* answer)
    : events_(std::move(events)),
      answer_(answer),
      parser_([this](std::string_view data) { return Event(data); }) {}

bool AnswerStream::Event(std::string_view data) {
  if (data == "[DONE]") {
    done_ = true;
    return false;
  }
  const Json chunk = Parse(data);
  if (chunk.is_discarded()) {
    error_ = absl::DataLossError("the server sent an event that is no JSON");
    return false;
  }
  if (!At(chunk, "error").is_null()) {
    const std::string message = ErrorMessage(chunk);
    error_ = absl::InternalError(message.empty() ? "the server gave up, no reason given" : message);
    return false;
  }
  const Json& tokens = At(At(chunk, "usage"), "completion_tokens");
  if (tokens.is_number_integer()) answer_->tokens = tokens.get<int64_t>();
  const Json& choices = At(chunk, "choices");
  if (!choices.is_array() || choices.empty()) return true;
  const Json& choice = choices[0];
  const Json& delta = At(choice, "delta");
  std::string reasoning = TextAt(delta, "reasoning");
  if (reasoning.empty()) reasoning = TextAt(delta, "reasoning_content");
  const std::string content = TextAt(delta, "content");
  answer_->last = std::chrono::steady_clock::now();
  if (!answer_->first) answer_->first = answer_->last;
  if (!reasoning.empty()) events_.on_reasoning(reasoning);
  if (!content.empty()) events_.on_content(content);
  answer_->content += content;
  if (std::string reason = TextAt(choice, "finish_reason"); !reason.empty()) {
    answer_->finish_reason = std::move(reason);
  }
  return true;
}

absl::Status AnswerStream::End() const {
  if (!error_.ok()) return error_;
  if (parser_.too_long()) return absl::DataLossError("the server sent an event past all bounds");
  if (!done_) return absl::DataLossError("the answer broke off");
  return absl::OkStatus();
}

absl::Status ChatClient::WaitLoaded(const std::function<void(double)>& on_progress,
                                    Duration stall_max) const {
  using Clock = std::chrono::steady_clock;
  double best = -1;
  Clock::time_point advanced = Clock::now();
  while (true) {
    const absl::StatusOr<HttpReply> reply = http_.Get("/ready", kReadySilence);
    if (absl::IsUnavailable(reply.status())) return WithHint(reply.status());
    if (absl::IsCancelled(reply.status())) return reply.status();
    // What else is wrong the question itself will meet.
    const std::optional<double> progress = reply.ok() ? LoadOf(*reply) : std::nullopt;
    if (!progress) return absl::OkStatus();
    if (*progress > best) {
      best = *progress;
      advanced = Clock::now();
    } else if (Clock::now() - advanced >= stall_max) {
      return absl::DeadlineExceededError(
          fmt::format("the server at {} is loading, and stood at {:.0f} % for {} s", url().text,
                      100 * best, stall_max / std::chrono::seconds(1)));
    }
    on_progress(*progress);
    RETURN_IF_ERROR(http_.Pause(kLoadingLook));
  }
}

absl::StatusOr<std::string> ChatClient::FirstModel() const {
  const absl::StatusOr<HttpReply> reply = http_.Get("/v1/models");
  if (!reply.ok()) return WithHint(reply.status());
  if (reply->status != 200) return ErrorOf(*reply);
  const Json body = Parse(reply->body);
  const Json& models = At(body, "data");
  std::string name;
  if (models.is_array() && !models.empty()) name = TextAt(models[0], "id");
  if (!name.empty()) return name;
  return absl::InternalError(fmt::format("what answers at {} lists no model", url().text));
}

absl::Status ChatClient::Ask(const ChatSettings& settings, const std::vector<ChatMessage>& messages,
                             AnswerEvents events, ChatAnswer* answer) const {
  AnswerStream stream(std::move(events), answer);
  const absl::StatusOr<HttpReply> reply =
      http_.Post("/v1/chat/completions", ChatRequestBody(settings, messages),
                 [&stream](std::string_view bytes) { return stream.Feed(bytes); });
  if (!reply.ok()) return WithHint(reply.status());
  if (reply->status != 200) return ErrorOf(*reply);
  if (!reply->event_stream) {
    return absl::InternalError(
        fmt::format("what answers at {} sent no event stream: is it a model server?", url().text));
  }
  return stream.End();
}

}  // namespace bottega
