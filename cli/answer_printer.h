#pragma once

#include <cstdio>
#include <string>
#include <string_view>

namespace bottega {

// Where the chat writes, and how it may.
struct ChatScreen {
  std::FILE* answers = stdout;
  std::FILE* notes = stderr;  // reasoning and statistics; the same as `answers` on a terminal
  bool answers_terminal = false;
  bool notes_terminal = false;
  bool colour = false;  // of notes

  // For stdout and stderr as they are: on a terminal all goes there, else stdout has the answer
  // alone. Colour on a terminal unless NO_COLOR is set or TERM is dumb.
  static ChatScreen OfThisProcess();
};

// Text of a model or server with what would steer a terminal taken out (escape sequences, other
// control characters but tab and newline).
std::string Printable(std::string_view text);

// Writes one answer piece by piece: the reasoning dimmed where there is colour, else under
// headings. Each piece is visible at once, and leaves the terminal in its normal state.
class AnswerPrinter {
 public:
  AnswerPrinter(const ChatScreen& screen, bool hide_reasoning)
      : screen_(screen), hide_reasoning_(hide_reasoning) {}

  void Reasoning(std::string_view text);
  void Content(std::string_view text);
  // Ends the line begun. No more pieces.
  void Finish();

 private:
  void LeaveReasoning();

  const ChatScreen& screen_;
  const bool hide_reasoning_;
  bool reasoning_open_ = false;
  bool reasoned_ = false;
  bool answered_ = false;
  char last_ = '\n';  // written to answers
};

// A line for the user beside the answers: dimmed where there is colour.
void PrintNote(const ChatScreen& screen, std::string_view line);

}  // namespace bottega
