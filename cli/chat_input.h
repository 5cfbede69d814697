#pragma once

#include <string>
#include <string_view>

#include "cli/chat_settings.h"

namespace bottega {

// What a line typed into the chat asks for.
struct ChatTurn {
  enum class Kind {
    kNothing,
    kAsk,    // text: the message
    kPrint,  // text: lines for the user
    kError,  // text: one line for the user
    kClear,  // forget the conversation
    kLeave,
  };
  Kind kind = Kind::kNothing;
  std::string text;
};

// Reads the lines of the chat: commands (/...), messages, blocks between """ of several lines.
// Commands that set something do so in `settings`, which outlives this.
class ChatInput {
 public:
  explicit ChatInput(ChatSettings& settings) : settings_(settings) {}

  ChatTurn Line(std::string_view line);
  bool in_block() const { return in_block_; }
  void DropBlock();

 private:
  ChatTurn BlockLine(std::string_view line);
  ChatTurn CommandLine(std::string_view line);
  ChatTurn Set(std::string_view name, std::string_view value);

  ChatSettings& settings_;
  bool in_block_ = false;
  std::string block_;
};

}  // namespace bottega
