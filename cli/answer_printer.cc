#include "cli/answer_printer.h"

#include <unistd.h>

#include <cstdlib>

namespace bottega {
namespace {

constexpr std::string_view kDim = "\x1b[2m", kNormal = "\x1b[0m";

void Write(std::FILE* to, std::string_view text) { std::fwrite(text.data(), 1, text.size(), to); }

void WriteDim(const ChatScreen& screen, std::string_view text) {
  if (screen.colour) Write(screen.notes, kDim);
  Write(screen.notes, text);
  if (screen.colour) Write(screen.notes, kNormal);
  std::fflush(screen.notes);
}

bool Set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

}  // namespace

ChatScreen ChatScreen::OfThisProcess() {
  ChatScreen screen;
  screen.answers_terminal = isatty(STDOUT_FILENO) == 1;
  if (screen.answers_terminal) screen.notes = stdout;
  screen.notes_terminal = isatty(fileno(screen.notes)) == 1;
  const char* term = std::getenv("TERM");
  screen.colour = screen.notes_terminal && !Set("NO_COLOR") &&
                  (term == nullptr || std::string_view(term) != "dumb");
  return screen;
}

std::string Printable(std::string_view text) {
  std::string kept;
  kept.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // U+0080 .. U+009F: a terminal may take them for escape sequences.
    if (byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) {
      ++i;
      continue;
    }
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f) continue;
    kept += text[i];
  }
  return kept;
}

void AnswerPrinter::Reasoning(std::string_view text) {
  if (hide_reasoning_) return;
  if (!reasoned_ && !screen_.colour) Write(screen_.notes, "Thinking:\n");
  reasoned_ = reasoning_open_ = true;
  WriteDim(screen_, screen_.notes_terminal ? Printable(text) : std::string(text));
}

void AnswerPrinter::LeaveReasoning() {
  if (!reasoning_open_) return;
  reasoning_open_ = false;
  Write(screen_.notes, screen_.answers_terminal ? "\n\n" : "\n");
  if (screen_.answers_terminal && !screen_.colour) Write(screen_.notes, "Answer:\n");
  std::fflush(screen_.notes);
}

void AnswerPrinter::Content(std::string_view text) {
  LeaveReasoning();
  const std::string shown = screen_.answers_terminal ? Printable(text) : std::string(text);
  if (shown.empty()) return;
  Write(screen_.answers, shown);
  std::fflush(screen_.answers);
  answered_ = true;
  last_ = shown.back();
}

void AnswerPrinter::Finish() {
  if (reasoning_open_) Write(screen_.notes, "\n");
  if (answered_ && last_ != '\n') Write(screen_.answers, "\n");
  std::fflush(screen_.notes);
  std::fflush(screen_.answers);
}

void PrintNote(const ChatScreen& screen, std::string_view line) {
  WriteDim(screen, line);
  Write(screen.notes, "\n");
  std::fflush(screen.notes);
}

}  // namespace bottega
