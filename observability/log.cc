#include "observability/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>

namespace bottega {
namespace {

// The one process-wide mutable state of Bottega (docs/decisions): lines of all threads meet here.
struct Sink {
  std::mutex mutex;
  std::shared_ptr<spdlog::logger> logger;  // guarded by mutex
  std::string* captured = nullptr;         // guarded by mutex
  std::atomic<LogLevel> least = LogLevel::kInfo;
  std::atomic<bool> json = false;
};

Sink& TheSink() {
  static Sink* sink = [] {
    auto* made = new Sink;
    auto stderr_sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
    made->logger = std::make_shared<spdlog::logger>("bottega", stderr_sink);
    made->logger->set_pattern("%v");
    made->logger->set_level(spdlog::level::trace);
    made->json = isatty(STDERR_FILENO) == 0;
    return made;
  }();
  return *sink;
}

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "error";
}

// UTC, milliseconds: 2026-03-01T12:00:00.123Z
std::string Timestamp() {
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  const std::time_t seconds = ms.count() / 1000;
  std::tm utc;
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                     ms.count() % 1000);
}

// A line is one line and valid JSON whatever a message holds.
void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(static_cast<char>(c));
    } else if (c < 0x20) {
      fmt::format_to(std::back_inserter(*out), "\\u{:04x}", c);
    } else {
      out->push_back(static_cast<char>(c));
    }
  }
  out->push_back('"');
}

std::string OneLine(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 && c != '\t') c = ' ';
  }
  return line;
}

}  // namespace

void OpenLogSink(const LogSinkOptions& options) {
  Sink& sink = TheSink();
  sink.least = options.least;
  sink.json = options.form == LogSinkOptions::Form::kJson ||
              (options.form == LogSinkOptions::Form::kByTerminal && isatty(STDERR_FILENO) == 0);
}

void CaptureLog(std::string* lines) {
  Sink& sink = TheSink();
  std::lock_guard lock(sink.mutex);
  sink.captured = lines;
}

void Logger::Write(LogLevel level, std::string_view message, std::string_view request_id) const {
  if (counter_ != nullptr) counter_(counters_, level);
  Sink& sink = TheSink();
  if (level < sink.least) return;
  std::string line;
  if (sink.json) {
    line = fmt::format(R"({{"ts":"{}","level":"{}","msg":)", Timestamp(), LevelName(level));
    AppendJsonString(message, &line);
    line += ",\"role\":";
    AppendJsonString(role_, &line);
    line += ",\"worker\":";
    AppendJsonString(worker_, &line);
    if (!request_id.empty()) {
      line += ",\"request_id\":";
      AppendJsonString(request_id, &line);
    }
    if (const uint64_t epoch = *epoch_; epoch > 0) line += fmt::format(",\"epoch\":{}", epoch);
    line += '}';
  } else {
    line = fmt::format("{} {:7} {}{}{}", Timestamp(), LevelName(level),
                       worker_.empty() ? "" : worker_ + ": ", OneLine(message),
                       request_id.empty() ? "" : fmt::format(" [{}]", OneLine(request_id)));
  }
  std::lock_guard lock(sink.mutex);
  if (sink.captured != nullptr) {
    *sink.captured += line + "\n";
    return;
  }
  sink.logger->log(spdlog::level::info, line);
  sink.logger->flush();
}

}  // namespace bottega
