#include "cli/trace_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "core/base/status.h"

namespace bottega {
namespace {

constexpr int kEmbedStage = 0;
constexpr uint64_t kRankAfterLayers = 0xffffff;
constexpr size_t kReadBytes = 1 << 20;

template <typename T>
bool ParseWhole(std::string_view text, T* value, int base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value, base);
  return error == std::errc() && end == text.data() + text.size();
}

// The word up to the next blank, taken off `line`.
std::string_view TakeWord(std::string_view& line) {
  const size_t end = std::min(line.find(' '), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

// What is wrong with the line; nothing: `entry` is set.
std::optional<std::string> ParseLine(std::string_view line, StageNames& stages, TraceEntry* entry) {
  const std::string_view sequence = TakeWord(line);
  const std::string_view position_text = TakeWord(line);
  const std::string_view layer_text = TakeWord(line);
  const std::string_view stage_name = TakeWord(line);
  const std::string_view hash = TakeWord(line);
  if (hash.empty() || !line.empty()) return "is not \"SEQUENCE POSITION LAYER STAGE HASH\"";
  if (sequence.size() != 16 || !ParseWhole(sequence, &entry->sequence, 16)) {
    return "SEQUENCE is not 16 hex digits";
  }
  int32_t position = 0, layer = 0;
  if (!ParseWhole(position_text, &position, 10) || position < 0) return "POSITION is no position";
  if (!ParseWhole(layer_text, &layer, 10) || layer < -1 || layer >= limits::kLayersMax) {
    return "LAYER is no layer";
  }
  const int stage = stages.Intern(stage_name);
  if (stage < 0) return "STAGE is no stage of a trace";
  if (hash.size() != 8 || !ParseWhole(hash, &entry->hash, 16)) return "HASH is not 8 hex digits";
  entry->place = TracePlace(position, layer, stage);
  return std::nullopt;
}

// Lines of a file, in chunks. The views live until the next call.
class LineReader {
 public:
  explicit LineReader(std::FILE* file) : file_(file), buffer_(kReadBytes, '\0') {}

  enum class Got { kLine, kCutOff, kTooLong, kEnd, kError };
  Got Next(std::string_view* line) {
    for (;;) {
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      if (const size_t length = rest.find('\n'); length != std::string_view::npos) {
        *line = rest.substr(0, length);
        begin_ += length + 1;
        return length > limits::kTraceLineBytesMax ? Got::kTooLong : Got::kLine;
      }
      if (rest.size() > limits::kTraceLineBytesMax) return Got::kTooLong;
      std::memmove(buffer_.data(), rest.data(), rest.size());
      begin_ = 0;
      end_ = rest.size();
      const size_t n = std::fread(buffer_.data() + end_, 1, buffer_.size() - end_, file_);
      if (n == 0) {
        if (std::ferror(file_)) return Got::kError;
        return end_ == 0 ? Got::kEnd : Got::kCutOff;
      }
      end_ += n;
    }
  }

 private:
  std::FILE* const file_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;  // of what is read and not given out
};

absl::Status Unreadable(const std::string& path) {
  return MakeError(Reason::kInvalidValue,
                   fmt::format("cannot read {}: {}", path, std::strerror(errno)));
}

}  // namespace

int StageNames::Intern(std::string_view name) {
  for (size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) return static_cast<int>(i);
  }
  if (name.empty() || names_.size() == limits::kTraceStagesMax) return -1;
  names_.emplace_back(name);
  return static_cast<int>(names_.size()) - 1;
}

TracePlace::TracePlace(int32_t position, int32_t layer, int stage) {
  // Outside the layers: the embedding comes before them, all else after.
  uint64_t rank = static_cast<uint64_t>(layer + 1);
  if (layer == -1 && stage != kEmbedStage) rank = kRankAfterLayers;
  bits_ = static_cast<uint64_t>(position) << 32 | rank << 8 | static_cast<uint64_t>(stage);
}

int32_t TracePlace::layer() const {
  const uint64_t rank = bits_ >> 8 & 0xffffff;
  return rank == kRankAfterLayers ? -1 : static_cast<int32_t>(rank) - 1;
}

absl::StatusOr<Trace> ReadTrace(const std::string& path, StageNames& stages) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "r"),
                                                             &std::fclose);
  if (file == nullptr) return Unreadable(path);
  Trace trace;
  LineReader reader(file.get());
  std::string_view line;
  for (uint64_t number = 1;; ++number) {
    const LineReader::Got got = reader.Next(&line);
    if (got == LineReader::Got::kEnd) break;
    if (got == LineReader::Got::kError) return Unreadable(path);
    trace.cut_off = got == LineReader::Got::kCutOff;
    if (trace.cut_off) break;
    TraceEntry entry;
    std::optional<std::string> wrong = "is too long";
    if (got == LineReader::Got::kLine) wrong = ParseLine(line, stages, &entry);
    if (wrong) {
      return MakeError(Reason::kInvalidValue, fmt::format("{} line {}: {}", path, number, *wrong));
    }
    trace.entries.push_back(entry);
  }
  std::sort(trace.entries.begin(), trace.entries.end());
  const auto end = std::unique(trace.entries.begin(), trace.entries.end());
  trace.repeated = static_cast<uint64_t>(trace.entries.end() - end);
  trace.entries.erase(end, trace.entries.end());
  return trace;
}

}  // namespace bottega
