#include <cstdlib>
#include <random>

#include "gateway/tool_call_parser.h"
#include "tests/fuzz/fuzz_target.h"

namespace bottega {
namespace {

using gateway::ToolCallParser;

std::vector<std::string> Seeds() {
  return {
      "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
      "\"Forlì\"}}\n"
      "</tool_call>\n<tool_call>{\"arguments\":[1,-2.5e3,\"\\u00e8\\\"}\"],\"name\":\"f\"}</"
      "tool_call>",
      "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":True}}</tool_call>"
      "<tool_call>{\"id\":1,\"name\":\"\\u0066\",\"x\":[{}],\"arguments\":\"{}\"}",
      "<tool_call> "
      "<tool_call>{\"a\":\"<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"</tool_call>\"",
  };
}

struct Folded {
  std::string content;
  std::vector<std::string> calls;  // name, a zero, arguments
  int errors = 0;
  friend bool operator==(const Folded&, const Folded&) = default;
};

class Folding {
 public:
  explicit Folding(bool parallel)
      : parser_({.tools = {"f.g"}, .id_prefix = "id_", .parallel = parallel}) {}

  void Push(std::string_view text) { Take(parser_.Push(text)); }
  Folded Finish() {
    Take(parser_.Finish(false));
    folded_.errors = parser_.errors();
    return folded_;
  }

 private:
  void Take(const ToolCallParser::Piece& piece) {
    if (!piece.content.empty() && !folded_.calls.empty()) std::abort();
    folded_.content += piece.content;
    for (const gateway::ToolCallDelta& call : piece.calls) {
      if (call.id.empty() == !call.name.empty()) std::abort();
      if (!call.id.empty()) folded_.calls.push_back(call.name + '\0');
      if (call.index + 1 != static_cast<int>(folded_.calls.size())) std::abort();
      folded_.calls.back() += call.arguments;
    }
  }

  ToolCallParser parser_;
  Folded folded_;
};

// The answer of one cut is that of every other.
bool Run(std::span<const std::byte> input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  std::mt19937 random(static_cast<uint32_t>(input.size()));
  bool any = false;
  for (const bool parallel : {true, false}) {
    Folding whole(parallel), bytes(parallel), pieces(parallel);
    whole.Push(text);
    for (const char& byte : text) bytes.Push({&byte, 1});
    for (size_t at = 0; at < text.size();) {
      const std::string_view piece = text.substr(at, 1 + random() % 12);
      pieces.Push(piece);
      at += piece.size();
    }
    const Folded folded = whole.Finish();
    if (folded != bytes.Finish() || folded != pieces.Finish()) std::abort();
    any |= !folded.calls.empty();
  }
  return any;
}

}  // namespace

FuzzTarget ToolCallTarget() { return {"tool_call", Seeds, Run}; }

}  // namespace bottega
