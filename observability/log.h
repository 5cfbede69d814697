#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace bottega {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Where this process' lines go: stderr, as text on a terminal, else one JSON object a line with the
// keys ts level msg role worker request_id epoch. The sink is the only process-wide state of
// Bottega.
struct LogSinkOptions {
  LogLevel least = LogLevel::kInfo;
  enum class Form { kByTerminal, kText, kJson } form = Form::kByTerminal;
};
void OpenLogSink(const LogSinkOptions& options);
// Tests: lines go to `*lines` instead (nullptr: back to stderr).
void CaptureLog(std::string* lines);

// Who speaks. A small value; copy it. Any thread. Never give it prompts, answers or keys.
class Logger {
 public:
  // Counts lines by level, for bottega_log_messages_total; called on the logging thread.
  using Counter = void (*)(void* counters, LogLevel level);

  Logger() = default;
  Logger(std::string role, std::string worker)
      : role_(std::move(role)), worker_(std::move(worker)) {}
  void CountWith(Counter counter, void* counters) {
    counter_ = counter;
    counters_ = counters;
  }

  // Of the cluster table that this process reads; on every line from then on, of copies too.
  void SetEpoch(uint64_t epoch) const { *epoch_ = epoch; }

  void Debug(std::string_view message, std::string_view request_id = {}) const {
    Write(LogLevel::kDebug, message, request_id);
  }
  void Info(std::string_view message, std::string_view request_id = {}) const {
    Write(LogLevel::kInfo, message, request_id);
  }
  void Warning(std::string_view message, std::string_view request_id = {}) const {
    Write(LogLevel::kWarning, message, request_id);
  }
  void Error(std::string_view message, std::string_view request_id = {}) const {
    Write(LogLevel::kError, message, request_id);
  }

 private:
  void Write(LogLevel level, std::string_view message, std::string_view request_id) const;

  std::string role_;
  std::string worker_;
  Counter counter_ = nullptr;
  void* counters_ = nullptr;
  std::shared_ptr<std::atomic<uint64_t>> epoch_ = std::make_shared<std::atomic<uint64_t>>(0);
};

}  // namespace bottega
