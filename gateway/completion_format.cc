#include <algorithm>

#include "gateway/answer_format.h"

namespace bottega::gateway {
namespace {

int64_t CodePoints(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
}

class CompletionFormat : public AnswerFormat {
 public:
  explicit CompletionFormat(FormatOptions options) : options_(std::move(options)) {}

  // The prompt, where it is wanted back.
  Json Opening(const AnswerHead& head, int choice) override {
    const std::string echo = Echo(choice);
    if (echo.empty() && !options_.token_ids) return nullptr;
    Json chunk = ChunkOf(head, choice, echo);
    if (options_.token_ids) chunk["choices"][0]["prompt_token_ids"] = PromptIds(choice);
    return chunk;
  }

  Json Chunk(const AnswerHead& head, const ChoiceDelta& delta) override {
    const bool tokens = options_.logprobs && !delta.logprobs.empty();
    const bool ids = options_.token_ids && !delta.token_ids.empty();
    if (delta.content.empty() && !tokens && !ids && !delta.end) return nullptr;
    Json chunk = ChunkOf(head, delta.choice, delta.content);
    Json& choice = chunk["choices"][0];
    if (tokens) choice["logprobs"] = Logprobs(delta.choice, delta.logprobs);
    if (ids) choice["token_ids"] = delta.token_ids;
    if (delta.end) {
      choice["finish_reason"] = delta.end->reason;
      choice["stop_reason"] = StopReasonJson(*delta.end);
    }
    return chunk;
  }

  Json Whole(const AnswerHead& head, const std::vector<ChoiceDelta>& choices) override {
    Json whole = HeadJson(head, "text_completion");
    whole["choices"] = Json::array();
    for (const ChoiceDelta& folded : choices) {
      Json choice = {{"index", folded.choice},
                     {"text", Echo(folded.choice) + folded.content},
                     {"logprobs", nullptr},
                     {"finish_reason", folded.end->reason},
                     {"stop_reason", StopReasonJson(*folded.end)}};
      if (options_.logprobs) choice["logprobs"] = Logprobs(folded.choice, folded.logprobs);
      if (options_.token_ids) {
        choice["token_ids"] = folded.token_ids;
        choice["prompt_token_ids"] = PromptIds(folded.choice);
      }
      whole["choices"].push_back(std::move(choice));
    }
    return whole;
  }

  Json UsageChunk(const AnswerHead& head) override {
    Json chunk = HeadJson(head, "text_completion");
    chunk["choices"] = Json::array();
    return chunk;
  }

 private:
  static Json ChunkOf(const AnswerHead& head, int choice, const std::string& text) {
    Json chunk = HeadJson(head, "text_completion");
    chunk["choices"] = Json::array();
    chunk["choices"].push_back(
        {{"index", choice}, {"text", text}, {"logprobs", nullptr}, {"finish_reason", nullptr}});
    return chunk;
  }

  std::string Echo(int choice) const {
    return options_.echoes.empty() ? "" : options_.echoes[choice / options_.choices_per_prompt];
  }
  const std::vector<int32_t>& PromptIds(int choice) const {
    return options_.prompt_ids[choice / options_.choices_per_prompt];
  }

  // top_logprobs: the chosen token is always among them; of two ids with one text the likelier
  // stays, since the shape is an object by text.
  Json TopOf(const LoggedToken& token) const {
    if (options_.top_logprobs == 0) return nullptr;
    Json top = Json::object();
    int shown = 0;
    for (const auto& [id, logprob] : token.top) {
      if (shown++ == options_.top_logprobs) break;
      const std::string text = options_.names->Text(id);
      if (!top.contains(text)) top[text] = LogprobJson(logprob);
    }
    const std::string chosen = options_.names->Text(token.id);
    if (!top.contains(chosen)) top[chosen] = LogprobJson(token.logprob);
    return top;
  }

  Json Logprobs(int choice, const std::vector<LoggedToken>& tokens) {
    if (offsets_.size() <= static_cast<size_t>(choice)) offsets_.resize(choice + 1);
    int64_t& offset = offsets_[choice];
    Json shown = {{"tokens", Json::array()},
                  {"token_logprobs", Json::array()},
                  {"top_logprobs", Json::array()},
                  {"text_offset", Json::array()}};
    for (const LoggedToken& token : tokens) {
      const std::string text = options_.names->Text(token.id);
      shown["tokens"].push_back(text);
      shown["token_logprobs"].push_back(LogprobJson(token.logprob));
      shown["top_logprobs"].push_back(TopOf(token));
      shown["text_offset"].push_back(offset);
      offset += CodePoints(text);
    }
    if (options_.top_logprobs == 0) shown["top_logprobs"] = nullptr;
    return shown;
  }

  const FormatOptions options_;
  std::vector<int64_t> offsets_;  // by choice: code points before the next token
};

}  // namespace

std::unique_ptr<AnswerFormat> MakeCompletionFormat(FormatOptions options) {
  return std::make_unique<CompletionFormat>(std::move(options));
}

}  // namespace bottega::gateway
