#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/chat_settings.h"
#include "cli/http_client.h"
#include "cli/sse_parser.h"
#include "core/base/load_progress.h"

namespace bottega {

struct ChatMessage {
  std::string role;
  std::string content;
};

// Where an answer goes as it comes; pieces are whole code points.
struct AnswerEvents {
  std::function<void(std::string_view text)> on_reasoning;
  std::function<void(std::string_view text)> on_content;
};

struct ChatAnswer {
  std::string content;
  std::string finish_reason;  // "stop", "length", ...; empty: it did not end by itself
  int64_t tokens = 0;         // reasoning included; 0 where the server tells no usage
  // Chunks of the answer: the first comes with the first token, also where that shows no text.
  std::optional<std::chrono::steady_clock::time_point> first, last;
};

// Folds the server-sent events of one answer.
class AnswerStream {
 public:
  AnswerStream(AnswerEvents events, ChatAnswer* answer);

  bool Feed(std::string_view bytes) { return parser_.Feed(bytes); }
  // How the answer ended: OK after [DONE], the server's own error, or DataLoss.
  absl::Status End() const;

 private:
  bool Event(std::string_view data);

  const AnswerEvents events_;
  ChatAnswer* const answer_;
  bool done_ = false;
  absl::Status error_;
  SseParser parser_;
};

// The JSON body of /v1/chat/completions.
std::string ChatRequestBody(const ChatSettings& settings, const std::vector<ChatMessage>& messages);

// Talks with one server. Errors are for people: the server's own message where it has one.
class ChatClient {
 public:
  explicit ChatClient(HttpClient http) : http_(std::move(http)) {}

  const Url& url() const { return http_.url(); }
  // Waits while the server says that it is loading; `on_progress` gets 0 to 1, again and again.
  // Unavailable: nobody answers. DeadlineExceeded: no progress for `stall_max`. OK also where the
  // server knows no /ready.
  absl::Status WaitLoaded(const std::function<void(double progress)>& on_progress,
                          Duration stall_max = kLoadStallMax) const;
  // Name of the first model served.
  absl::StatusOr<std::string> FirstModel() const;
  // Blocks until the answer has ended. On an error or an interruption (Cancelled) `answer` holds
  // what had come.
  absl::Status Ask(const ChatSettings& settings, const std::vector<ChatMessage>& messages,
                   AnswerEvents events, ChatAnswer* answer) const;

 private:
  HttpClient http_;
};

}  // namespace bottega
