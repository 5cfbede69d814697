#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace bottega {

// How the chat asks. What is not set is left to the server.
struct ChatSettings {
  std::string model;
  std::optional<double> temperature;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> seed;
  std::string think;  // "", on, off, turbo
  std::string lang;   // "", en, ita: of the reasoning
  std::string system;
  bool stats = false;
  bool hide_reasoning = false;
};

// Sets one by the name that flags and /set share ("max-tokens"). "default" or "" unsets it. A wrong
// value is InvalidArgument and changes nothing.
absl::Status SetChatSetting(ChatSettings& settings, std::string_view name, std::string_view value);

// One line a setting, for /show.
std::string DescribeChatSettings(const ChatSettings& settings);

}  // namespace bottega
