#include "gateway/answer_format.h"

namespace bottega::gateway {
namespace {

class ChatFormat : public AnswerFormat {
 public:
  explicit ChatFormat(FormatOptions options) : options_(std::move(options)) {}

  Json Opening(const AnswerHead& head, int choice) override {
    Json delta = {{"role", "assistant"}, {"content", Echo()}};
    Json chunk = ChunkOf(head, choice, std::move(delta));
    if (options_.token_ids && choice == 0) chunk["prompt_token_ids"] = options_.prompt_ids.at(0);
    return chunk;
  }

  Json Chunk(const AnswerHead& head, const ChoiceDelta& delta) override {
    Json fields = Json::object();
    if (options_.show_reasoning && !delta.reasoning.empty()) {
      PutReasoning(fields, delta.reasoning);
    }
    if (!delta.content.empty()) fields["content"] = delta.content;
    for (const ToolCallDelta& call : delta.tool_calls) fields["tool_calls"].push_back(Part(call));
    const bool tokens = options_.logprobs && !delta.logprobs.empty();
    const bool ids = options_.token_ids && !delta.token_ids.empty();
    if (fields.empty() && !tokens && !ids && !delta.end) return nullptr;
    Json chunk = ChunkOf(head, delta.choice, std::move(fields));
    Json& choice = chunk["choices"][0];
    if (tokens) choice["logprobs"] = Logprobs(delta.logprobs);
    if (ids) choice["token_ids"] = delta.token_ids;
    if (delta.end) {
      choice["finish_reason"] = delta.end->reason;
      choice["stop_reason"] = StopReasonJson(*delta.end);
    }
    return chunk;
  }

  Json Whole(const AnswerHead& head, const std::vector<ChoiceDelta>& choices) override {
    Json whole = HeadJson(head, "chat.completion");
    if (options_.token_ids) whole["prompt_token_ids"] = options_.prompt_ids.at(0);
    whole["choices"] = Json::array();
    for (const ChoiceDelta& folded : choices) {
      Json message = {{"role", "assistant"}, {"content", nullptr}};
      const std::string content = Echo() + folded.content;
      const bool answered = folded.in_content && folded.tool_calls.empty();
      if (answered || !content.empty()) message["content"] = content;
      Json reasoning;
      if (options_.show_reasoning && folded.saw_reasoning) reasoning = folded.reasoning;
      PutReasoning(message, std::move(reasoning));
      for (const ToolCallDelta& call : folded.tool_calls) {
        message["tool_calls"].push_back(
            {{"id", call.id},
             {"type", "function"},
             {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
      }
      Json choice = {{"index", folded.choice},
                     {"message", std::move(message)},
                     {"logprobs", nullptr},
                     {"finish_reason", folded.end->reason},
                     {"stop_reason", StopReasonJson(*folded.end)}};
      if (options_.logprobs) choice["logprobs"] = Logprobs(folded.logprobs);
      if (options_.token_ids) choice["token_ids"] = folded.token_ids;
      whole["choices"].push_back(std::move(choice));
    }
    return whole;
  }

  Json UsageChunk(const AnswerHead& head) override {
    Json chunk = HeadJson(head, "chat.completion.chunk");
    chunk["choices"] = Json::array();
    return chunk;
  }

 private:
  // The assistant's last message, where it is continued and wanted back.
  std::string Echo() const { return options_.echoes.empty() ? "" : options_.echoes[0]; }

  static Json ChunkOf(const AnswerHead& head, int choice, Json delta) {
    Json chunk = HeadJson(head, "chat.completion.chunk");
    chunk["choices"] = Json::array();
    chunk["choices"].push_back({{"index", choice},
                                {"delta", std::move(delta)},
                                {"logprobs", nullptr},
                                {"finish_reason", nullptr}});
    return chunk;
  }

  static Json Part(const ToolCallDelta& call) {
    Json part = {{"index", call.index}};
    if (!call.id.empty()) {
      part["id"] = call.id;
      part["type"] = "function";
      part["function"]["name"] = call.name;
    }
    if (!call.arguments.empty()) part["function"]["arguments"] = call.arguments;
    return part;
  }

  void PutReasoning(Json& into, Json reasoning) const {
    if (options_.reasoning_field != ReasoningField::kReasoningContent) {
      into["reasoning"] = reasoning;
    }
    if (options_.reasoning_field != ReasoningField::kReasoning) {
      into["reasoning_content"] = std::move(reasoning);
    }
  }

  Json TokenJson(int32_t id, float logprob) const {
    Json bytes = Json::array();
    for (unsigned char byte : options_.names->Bytes(id)) bytes.push_back(byte);
    return {{"token", options_.names->Text(id)},
            {"logprob", LogprobJson(logprob)},
            {"bytes", std::move(bytes)}};
  }

  Json Logprobs(const std::vector<LoggedToken>& tokens) const {
    Json content = Json::array();
    for (const LoggedToken& token : tokens) {
      Json entry = TokenJson(token.id, token.logprob);
      Json top = Json::array();
      for (const auto& [id, logprob] : token.top) {
        if (top.size() == static_cast<size_t>(options_.top_logprobs)) break;
        top.push_back(TokenJson(id, logprob));
      }
      entry["top_logprobs"] = std::move(top);
      content.push_back(std::move(entry));
    }
    return {{"content", std::move(content)}};
  }

  const FormatOptions options_;
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeChatFormat(FormatOptions options) {
  return std::make_unique<ChatFormat>(std::move(options));
}

}  // namespace bottega::gateway
