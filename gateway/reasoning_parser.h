#pragma once

#include <string>
#include <string_view>

namespace bottega::gateway {

// The tags of a thought, as text; with many models each is a token too.
inline constexpr std::string_view kThinkOpen = "<think>";
inline constexpr std::string_view kThinkClose = "</think>";

// Splits generated text into reasoning and answer, piece by piece; the concatenation of what it
// gives does not depend on how the text was cut.
//
// Reasoning ends at the first `</think>`; newlines next to the tags are dropped; text that may
// begin a tag, and newlines that may stand before one, are held back. What stands between the
// prompt and `<think>` (white space, a language token, `/turbo`) is dropped.
class ReasoningParser {
 public:
  enum class Start {
    kContent,    // thinking is off, or the prompt closed it: all is answer
    kReasoning,  // the prompt opened `<think>`
    kDetect,     // the prompt says nothing: the model writes `<think>` first, or answers at once
  };
  struct Piece {
    std::string reasoning;
    std::string content;
  };

  explicit ReasoningParser(Start start);

  Piece Push(std::string_view text);
  // The end of the text: what was held back.
  Piece Finish();

  // The answer has begun, or nothing ever was reasoning: `content` is then text, maybe empty, and
  // else null.
  bool in_content() const { return state_ == State::kContent; }
  bool saw_reasoning() const { return saw_reasoning_; }

 private:
  enum class State { kOpening, kReasoning, kContent };
  void Run(bool at_end, Piece& piece);
  bool RunOpening(bool at_end);
  bool RunReasoning(bool at_end, Piece& piece);
  void RunContent(Piece& piece);

  const bool detect_;
  State state_;
  bool saw_reasoning_;
  bool trim_content_ = false;  // newlines after `</think>` are still to be dropped
  bool trim_reasoning_ = false;
  std::string held_;
};

// Where an answer starts, from the text that add_generation_prompt put at the end of the prompt:
// the last tag in it decides.
ReasoningParser::Start StartAfter(std::string_view generation_prompt);

}  // namespace bottega::gateway
