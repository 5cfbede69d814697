#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace bottega::gateway {

struct LoggedToken {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // id, log-probability; most likely first
};

// Why a choice ended. `reason`: stop, length or tool_calls. `stop`: nothing for eos, else the
// string or id.
struct ChoiceEnd {
  std::string reason;
  std::variant<std::monostate, std::string, int32_t> stop;
};

// What an answer's text adds to one of its tool calls: first its name, then its arguments.
struct ToolCallDelta {
  int index = 0;
  std::string id, name;  // empty: the call has begun before
  std::string arguments;
};

// What one token (or the end) of one choice adds to its answer. A streamed answer shows each; an
// unstreamed one is their fold, so both are the same text.
struct ChoiceDelta {
  int choice = 0;
  std::string reasoning;
  std::string content;
  std::vector<ToolCallDelta> tool_calls;
  bool in_content = false;  // the answer has begun: unstreamed content is text, else null
  bool saw_reasoning = false;
  std::vector<LoggedToken> logprobs;  // of the tokens since the last delta
  std::vector<int32_t> token_ids;     // same
  std::optional<ChoiceEnd> end;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;  // part of completion_tokens
};

}  // namespace bottega::gateway
