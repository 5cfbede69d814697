#include "cli/chat_input.h"

#include <fmt/format.h>

#include "core/base/status.h"

namespace bottega {
namespace {

using Kind = ChatTurn::Kind;

constexpr std::string_view kQuotes = "\"\"\"";
constexpr char kHelp[] =
    "/think on|off|turbo     how much the model reasons before it answers\n"
    "/lang en|ita            the language in which it reasons\n"
    "/set NAME VALUE         model think lang temperature max-tokens seed system stats\n"
    "                        hide-reasoning; VALUE \"default\" leaves it to the server\n"
    "/show                   what is set\n"
    "/clear                  forget the conversation\n"
    "/bye                    leave (also Ctrl-D)\n"
    "\"\"\"                     begins and ends a message of several lines\n"
    "Ctrl-C                  stops an answer\n";

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// The first word of `text`, and the rest without the blanks between.
std::pair<std::string_view, std::string_view> SplitWord(std::string_view text) {
  const size_t end = std::min(text.find_first_of(" \t"), text.size());
  return {text.substr(0, end), Trim(text.substr(end))};
}

}  // namespace

ChatTurn ChatInput::Line(std::string_view line) {
  if (in_block_) return BlockLine(line);
  const std::string_view text = Trim(line);
  if (text.starts_with(kQuotes)) {
    in_block_ = true;
    return BlockLine(text.substr(kQuotes.size()));
  }
  if (text.empty()) return {};
  if (text.starts_with('/')) return CommandLine(text);
  return {Kind::kAsk, std::string(text)};
}

ChatTurn ChatInput::BlockLine(std::string_view line) {
  const std::string_view text = Trim(line);
  if (!text.ends_with(kQuotes)) {
    block_ += line;
    block_ += '\n';
    return {};
  }
  block_ += line.substr(0, line.rfind(kQuotes));
  const std::string message(Trim(block_));
  DropBlock();
  if (message.empty()) return {};
  return {Kind::kAsk, message};
}

void ChatInput::DropBlock() {
  in_block_ = false;
  block_.clear();
}

ChatTurn ChatInput::CommandLine(std::string_view line) {
  const auto [command, rest] = SplitWord(line);
  if (command == "/bye" || command == "/exit" || command == "/quit") return {Kind::kLeave};
  if (command == "/?" || command == "/help") return {Kind::kPrint, kHelp};
  if (command == "/show") return {Kind::kPrint, DescribeChatSettings(settings_)};
  if (command == "/clear") return {Kind::kClear};
  if (command == "/think" || command == "/lang") return Set(command.substr(1), rest);
  if (command == "/set") {
    const auto [name, value] = SplitWord(rest);
    return Set(name, value);
  }
  return {Kind::kError, fmt::format("no command \"{}\"; /? lists them. A message that begins with "
                                    "\"/\" goes between \"\"\"",
                                    command)};
}

ChatTurn ChatInput::Set(std::string_view name, std::string_view value) {
  if (name.empty() || value.empty()) {
    return {Kind::kError, name.empty() ? "/set NAME VALUE; /show lists the names"
                                       : fmt::format("{} needs a value; /show tells it", name)};
  }
  const absl::Status set = SetChatSetting(settings_, name, value);
  if (!set.ok()) return {Kind::kError, std::string(set.message())};
  return {};
}

}  // namespace bottega
