#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gateway/answer.h"
#include "gateway/json.h"
#include "gateway/request.h"

namespace bottega::gateway {

// How a token is shown in logprobs.
class TokenNames {
 public:
  virtual ~TokenNames() = default;
  virtual std::string Text(int32_t id) const = 0;  // bytes that are not UTF-8: U+FFFD
  virtual std::string Bytes(int32_t id) const = 0;
};

// Which fields of reasoning an answer carries.
enum class ReasoningField : uint8_t { kBoth, kReasoning, kReasoningContent };

// What all chunks of one answer have in common.
struct AnswerHead {
  std::string id;
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::string system_fingerprint;
};

struct FormatOptions {
  ReasoningField reasoning_field = ReasoningField::kBoth;
  bool show_reasoning = true;
  bool logprobs = false;
  int top_logprobs = 0;
  bool token_ids = false;
  const TokenNames* names = nullptr;
  std::vector<std::vector<int32_t>> prompt_ids;  // by prompt; shown where token_ids
  int choices_per_prompt = 1;
  // Text that `echo` puts before each choice; empty: none.
  std::vector<std::string> echoes;
};

// The shape of one API's answers. Stateful: text_offset of completions counts on.
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // The chunk that opens a choice (chat: the role); null: the API has none.
  virtual Json Opening(const AnswerHead& head, int choice) = 0;
  // One chunk of a stream, `usage` not set yet. Without text, tokens and end: null.
  virtual Json Chunk(const AnswerHead& head, const ChoiceDelta& delta) = 0;
  // The whole answer of folded deltas, one a choice, by index.
  virtual Json Whole(const AnswerHead& head, const std::vector<ChoiceDelta>& choices) = 0;
  // The chunk without choices that carries usage.
  virtual Json UsageChunk(const AnswerHead& head) = 0;
};

std::unique_ptr<AnswerFormat> MakeChatFormat(FormatOptions options);
std::unique_ptr<AnswerFormat> MakeCompletionFormat(FormatOptions options);

// Shared by both.
Json UsageJson(const Usage& usage);
Json HeadJson(const AnswerHead& head, const char* object);
Json StopReasonJson(const ChoiceEnd& end);
// As a double that is exactly the float, so that f32 round-trips; JSON has no -inf: -9999 then.
Json LogprobJson(float logprob);

}  // namespace bottega::gateway
