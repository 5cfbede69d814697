#include "gateway/messages.h"

#include <fmt/format.h>

#include <set>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega::gateway {
namespace {

absl::Status Invalid(const std::string& where, const std::string& message) {
  return MakeError(Reason::kInvalidValue, fmt::format("`{}`: {}", where, message), where);
}

const Json* Member(const Json& object, const char* name) {
  auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A string as it is; a list of text parts as a list of {"type": "text", "text": …}.
absl::StatusOr<Json> ReadContent(const std::string& where, const Json& content) {
  if (content.is_string()) return content;
  if (!content.is_array()) return WrongType(where, "a string or a list of text parts", content);
  if (content.size() > limits::kPartsPerMessageMax) {
    return Invalid(where, fmt::format("at most {} parts", limits::kPartsPerMessageMax));
  }
  Json parts = Json::array();
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string at = fmt::format("{}[{}]", where, i);
    if (!part.is_object()) return WrongType(at, "an object", part);
    const Json* type = Member(part, "type");
    if (type == nullptr || !type->is_string()) return Invalid(at + ".type", "must be a string");
    if (*type != "text") {
      return MakeError(Reason::kUnsupportedParameter,
                       fmt::format("`{}`: this model reads text only", at), at + ".type");
    }
    const Json* text = Member(part, "text");
    if (text == nullptr || !text->is_string()) return Invalid(at + ".text", "must be a string");
    parts.push_back({{"type", "text"}, {"text", *text}});
  }
  // One part is the same text in every template; several depend on how the template joins them.
  if (parts.size() == 1) return parts[0]["text"];
  return parts;
}

absl::StatusOr<Json> ReadToolCall(const std::string& where, const Json& call,
                                  std::set<std::string>& call_ids) {
  if (!call.is_object()) return WrongType(where, "an object", call);
  const Json* function = Member(call, "function");
  if (function == nullptr || !function->is_object()) {
    return Invalid(where + ".function", "must be an object");
  }
  const Json* name = Member(*function, "name");
  if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
    return Invalid(where + ".function.name", "must be a string");
  }
  Json arguments = Json::object();
  if (const Json* given = Member(*function, "arguments")) {
    if (!given->is_string() && !given->is_object()) {
      return WrongType(where + ".function.arguments", "a string", *given);
    }
    arguments = *given;
    if (given->is_string()) {
      absl::StatusOr<Json> parsed = ParseRequestJson(given->get_ref<const std::string&>());
      if (parsed.ok() && parsed->is_object()) arguments = *std::move(parsed);
    }
  }
  Json read = {{"type", "function"}};
  if (const Json* id = Member(call, "id")) {
    if (!id->is_string()) return WrongType(where + ".id", "a string", *id);
    call_ids.insert(id->get<std::string>());
    read["id"] = *id;
  }
  read["function"] = {{"name", *name}, {"arguments", std::move(arguments)}};
  return read;
}

struct Conversation {
  std::set<std::string> call_ids;  // of the assistant's calls so far
  bool any_call = false;
};

absl::Status ReadReasoning(const std::string& where, const Json& message, Json& read) {
  const Json* reasoning = Member(message, "reasoning");
  if (reasoning == nullptr) reasoning = Member(message, "reasoning_content");
  if (reasoning == nullptr) return absl::OkStatus();
  if (!reasoning->is_string()) return WrongType(where + ".reasoning", "a string", *reasoning);
  read["reasoning"] = *reasoning;
  read["reasoning_content"] = *reasoning;
  return absl::OkStatus();
}

absl::Status ReadAssistant(const std::string& where, const Json& message, Json& read,
                           Conversation& conversation) {
  RETURN_IF_ERROR(ReadReasoning(where, message, read));
  const Json* calls = Member(message, "tool_calls");
  if (calls != nullptr) {
    if (!calls->is_array()) return WrongType(where + ".tool_calls", "an array", *calls);
    if (calls->size() > limits::kToolsMax) {
      return Invalid(where + ".tool_calls", fmt::format("at most {} calls", limits::kToolsMax));
    }
    Json read_calls = Json::array();
    for (size_t i = 0; i < calls->size(); ++i) {
      ASSIGN_OR_RETURN(Json call, ReadToolCall(fmt::format("{}.tool_calls[{}]", where, i),
                                               (*calls)[i], conversation.call_ids));
      read_calls.push_back(std::move(call));
      conversation.any_call = true;
    }
    if (!read_calls.empty()) read["tool_calls"] = std::move(read_calls);
  }
  if (!read.contains("content")) {
    if (!read.contains("tool_calls") && !read.contains("reasoning")) {
      return Invalid(where + ".content", "must not be null");
    }
    read["content"] = "";
  }
  return absl::OkStatus();
}

absl::Status ReadToolResult(const std::string& where, const Json& message, Json& read,
                            const Conversation& conversation) {
  if (!read.contains("content")) return Invalid(where + ".content", "must not be null");
  const Json* id = Member(message, "tool_call_id");
  if (id != nullptr && !id->is_string()) {
    return WrongType(where + ".tool_call_id", "a string", *id);
  }
  const bool known = id == nullptr ? conversation.any_call
                                   : conversation.call_ids.contains(id->get<std::string>());
  if (!known) return Invalid(where + ".tool_call_id", "answers no call of the assistant");
  if (id != nullptr) read["tool_call_id"] = *id;
  return absl::OkStatus();
}

absl::StatusOr<Json> ReadMessage(const std::string& where, const Json& message,
                                 Conversation& conversation) {
  if (!message.is_object()) return WrongType(where, "an object", message);
  const Json* role = Member(message, "role");
  if (role == nullptr || !role->is_string()) return Invalid(where + ".role", "must be a string");
  Json read = {{"role", *role}};
  if (const Json* content = Member(message, "content")) {
    ASSIGN_OR_RETURN(read["content"], ReadContent(where + ".content", *content));
  }
  if (const Json* name = Member(message, "name")) {
    if (!name->is_string()) return WrongType(where + ".name", "a string", *name);
    read["name"] = *name;
  }
  if (*role == "assistant") {
    RETURN_IF_ERROR(ReadAssistant(where, message, read, conversation));
  } else if (*role == "tool") {
    RETURN_IF_ERROR(ReadToolResult(where, message, read, conversation));
  } else if (*role == "user" || *role == "system" || *role == "developer") {
    const bool empty = !read.contains("content") || read["content"].empty() ||
                       (*role == "user" && read["content"] == "");
    if (empty) return Invalid(where + ".content", "must not be empty");
  } else {
    return Invalid(where + ".role", "must be system, developer, user, assistant or tool");
  }
  return read;
}

}  // namespace

absl::Status ReadMessages(GenerateRequest& request, const Json& value, const RequestBounds&) {
  if (!value.is_array()) return WrongType("messages", "an array", value);
  if (value.empty()) return Invalid("messages", "must not be empty");
  if (value.size() > limits::kMessagesMax) {
    return Invalid("messages", fmt::format("at most {} messages", limits::kMessagesMax));
  }
  Conversation conversation;
  request.messages = Json::array();
  for (size_t i = 0; i < value.size(); ++i) {
    ASSIGN_OR_RETURN(Json message,
                     ReadMessage(fmt::format("messages[{}]", i), value[i], conversation));
    request.messages.push_back(std::move(message));
  }
  return absl::OkStatus();
}

absl::Status ReadTools(GenerateRequest& request, const Json& value, const RequestBounds&) {
  if (!value.is_array()) return WrongType("tools", "an array", value);
  if (value.empty()) return Invalid("tools", "must not be empty");
  if (value.size() > limits::kToolsMax) {
    return Invalid("tools", fmt::format("at most {} tools", limits::kToolsMax));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    if (!value[i].is_object()) return WrongType(where, "an object", value[i]);
    const Json* function = Member(value[i], "function");
    if (function == nullptr || !function->is_object()) {
      return Invalid(where + ".function", "must be an object");
    }
    const Json* name = Member(*function, "name");
    if (name == nullptr || !name->is_string()) {
      return Invalid(where + ".function.name", "must be a string");
    }
    const size_t size = name->get_ref<const std::string&>().size();
    if (size == 0 || size > limits::kToolNameCharsMax) {
      return Invalid(where + ".function.name",
                     fmt::format("must be of 1 to {} characters", limits::kToolNameCharsMax));
    }
  }
  request.tools = value;
  return absl::OkStatus();
}

absl::Status ReadToolChoice(GenerateRequest& request, const Json& value, const RequestBounds&) {
  request.tool_choice = value;
  return absl::OkStatus();
}

absl::Status CheckToolChoice(GenerateRequest& request) {
  const Json& choice = request.tool_choice;
  if (choice.is_null()) return absl::OkStatus();
  if (!choice.is_string() && !choice.is_object()) {
    return WrongType("tool_choice", "a string or an object", choice);
  }
  if (request.tools.is_null()) return Invalid("tool_choice", "needs `tools`");
  if (choice == "auto") return absl::OkStatus();
  if (choice == "none") {
    request.tools = nullptr;  // left out of the prompt
    return absl::OkStatus();
  }
  if (choice.is_string() && choice != "required") {
    return Invalid("tool_choice", "must be none, auto, required or a function");
  }
  return MakeError(Reason::kUnsupportedParameter,
                   "`tool_choice` other than none and auto is not supported", "tool_choice");
}

}  // namespace bottega::gateway
