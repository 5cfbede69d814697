#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gateway/config.h"
#include "gateway/reasoning_parser.h"
#include "gateway/request.h"
#include "gateway/text.h"

namespace bottega::gateway {

// What the text pool makes of a body.
struct PreparedRequest {
  GenerateRequest request;
  std::vector<std::string> texts;               // by prompt: rendered or raw; ids given: empty
  std::vector<std::vector<int32_t>> prompts;    // by prompt: token ids, never empty
  std::vector<std::string> echoes;              // by prompt: what `echo` shows; empty: no echo
  std::vector<std::vector<int32_t>> bad_words;  // every spelling of each, none empty
  ReasoningParser::Start start = ReasoningParser::Start::kContent;
  bool reads_tool_calls = false;
  double render_seconds = 0, tokenize_seconds = 0, parse_seconds = 0;
};

// Parse → render → tokenize, on a pool thread. `context`: tokens of prompt and answer together;
// past it the request is refused, and a text that cannot fit is not even tokenized.
absl::StatusOr<PreparedRequest> PrepareRequest(const ModelText& model, const GatewayConfig& config,
                                               Api api, const std::string& body, int64_t context);

// The conversation as the template shows it, and where the answer starts. For chat and for the
// routes that only render or tokenize.
struct RenderedChat {
  std::string text;
  ReasoningParser::Start start = ReasoningParser::Start::kContent;
  // Where text of users or tools spells control tokens: pieces of `text`, of which the odd ones are
  // to be read as plain characters. Empty: all of `text` as it is.
  std::vector<std::string> pieces;
};
absl::StatusOr<RenderedChat> RenderChat(const GatewayText& text, const GatewayConfig& config,
                                        const GenerateRequest& request);
absl::StatusOr<std::vector<int32_t>> EncodeChat(const GatewayText& text, const RenderedChat& chat);

// max_tokens of the request, or what the context leaves.
int64_t OutputTokens(const GenerateRequest& request, int64_t context, size_t prompt_tokens);

}  // namespace bottega::gateway
