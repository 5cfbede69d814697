#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bottega/internal/v1/attention.pb.h"
#include "gateway/answer.h"
#include "gateway/reasoning_parser.h"
#include "gateway/stop_strings.h"
#include "gateway/text.h"
#include "gateway/token_log.h"
#include "gateway/tool_call_parser.h"

namespace bottega::gateway {

struct ChoiceOptions {
  int index = 0;
  ReasoningParser::Start start = ReasoningParser::Start::kContent;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special_tokens = true;
  int64_t min_tokens = 0;
  bool keep_logprobs = false;
  bool keep_ids = false;
  std::vector<int32_t> eos_ids;
  std::optional<ToolCallParser::Options> tools;  // nothing: what looks like a call is content
};

// One sequence from tokens to answer: log → detokenize → stop strings → reasoning → tool calls.
// Everything derives from the token log, so that the text is the same whoever made the tokens and
// however they were grouped.
class Choice {
 public:
  Choice(const GatewayText& text, ChoiceOptions options);

  // One token of a worker. Nothing: the log refused it (an old owner, or not the next one). The
  // delta has an end when the worker ended the sequence, a stop string is complete, or the only
  // tool call that was allowed is.
  std::optional<ChoiceDelta> Accept(const internal::v1::GeneratedToken& token);
  // The worker ended the sequence without a token.
  ChoiceDelta EndWithout(internal::v1::FinishReason finish);

  TokenLog& log() { return log_; }
  const TokenLog& log() const { return log_; }
  bool ended() const { return ended_; }
  int64_t reasoning_tokens() const { return reasoning_tokens_; }
  int tool_parse_errors() const { return tools_ ? tools_->errors() : 0; }

 private:
  std::string Detokenize(int32_t id);
  void Show(const std::string& text, ChoiceDelta& delta);
  void AddReasoned(ReasoningParser::Piece piece, ChoiceDelta& delta);
  void AddContent(ToolCallParser::Piece piece, ChoiceDelta& delta);
  void End(ChoiceEnd end, ChoiceDelta& delta);

  const GatewayText& text_;
  const ChoiceOptions options_;
  std::vector<int32_t> kept_special_;  // think and tool tags flagged special: never hidden
  TokenLog log_;
  std::unique_ptr<GatewayText::Decoder> decoder_;
  StopStrings stops_;
  ReasoningParser reasoning_;
  std::optional<ToolCallParser> tools_;
  int64_t reasoning_tokens_ = 0;
  bool ended_ = false;
};

}  // namespace bottega::gateway
