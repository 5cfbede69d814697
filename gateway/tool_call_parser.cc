#include "gateway/tool_call_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "gateway/json.h"
#include "gateway/stop_strings.h"

namespace bottega::gateway {
namespace {

std::optional<std::string> StringOf(std::string_view literal) {
  absl::StatusOr<Json> json = ParseRequestJson(literal);
  if (!json.ok() || !json->is_string()) return std::nullopt;
  return json->get<std::string>();
}

// EngGPT2 writes `_` for `.` in names.
bool MayMean(std::string_view written, std::string_view tool) {
  return std::ranges::equal(written, tool,
                            [](char w, char t) { return w == t || (w == '_' && t == '.'); });
}

}  // namespace

ToolCallParser::ToolCallParser(Options options) : options_(std::move(options)) {}

ToolCallParser::Piece ToolCallParser::Push(std::string_view text) {
  held_ += text;
  Piece piece;
  Run(false, piece);
  return piece;
}

ToolCallParser::Piece ToolCallParser::Finish(bool cut) {
  cut_ = cut;
  Piece piece;
  Run(true, piece);
  return piece;
}

void ToolCallParser::Run(bool at_end, Piece& piece) {
  while (RunState(at_end, piece)) {
  }
  held_.erase(0, begin_);
  at_ -= begin_;
  begin_ = 0;
}

// True while there is something to do with what is there.
bool ToolCallParser::RunState(bool at_end, Piece& piece) {
  switch (state_) {
    case State::kText:
      return FindCall(at_end, piece);
    case State::kRaw:
      return ReadRaw(at_end, piece);
    case State::kFinished:
      begin_ = at_ = held_.size();
      return false;
    default:
      if (ReadCall(piece)) return true;
      if (at_end) EndInCall(piece);
      return at_end;
  }
}

// True once the tag of a call was found.
bool ToolCallParser::FindCall(bool at_end, Piece& piece) {
  const size_t tag = held_.find(kToolCallOpen, at_);
  const bool found = tag != std::string::npos;
  const size_t end =
      found ? tag : held_.size() - (at_end ? 0 : OverlapWithStart(held_, kToolCallOpen));
  size_t shown = begin_;  // up to here; what was read and is not shown is white space
  for (; at_ < end; ++at_) {
    if (!IsJsonWhitespace(held_[at_])) shown = at_ + 1;
  }
  if (at_end && !found) shown = end;
  if (calls_ == 0) {
    piece.content.append(held_, begin_, shown - begin_);
    begin_ = shown;
  } else {
    begin_ = end;
  }
  if (!found) return false;
  at_ = tag + kToolCallOpen.size();
  opening_ = at_ - begin_;
  state_ = State::kObject;
  named_ = has_arguments_ = false;
  clean_ = true;
  arguments_.clear();
  return true;
}

// True once the call is left, or broken.
bool ToolCallParser::ReadCall(Piece& piece) {
  while (at_ < held_.size()) {
    if (!TakeByte(held_[at_], piece)) {
      Break(piece);
      return true;
    }
    if (state_ == State::kText || state_ == State::kFinished) return true;
  }
  if (named_) {
    begin_ = at_;
    if (state_ == State::kValue && member_ == Member::kArguments) {
      ShowArguments(std::exchange(scanned_, {}), piece);
    }
  }
  return false;
}

void ToolCallParser::EndInCall(Piece& piece) {
  errors_ += cut_ ? 0 : 1;
  if (named_) {
    LeaveCall();
  } else {
    GiveBack(piece);
  }
}

// False: nothing of a call begins or goes on with this byte.
bool ToolCallParser::TakeByte(char byte, Piece& piece) {
  if (state_ == State::kKey || state_ == State::kValue) return TakeScanned(byte, piece);
  if (!IsJsonWhitespace(byte)) return TakeStructure(byte, piece);
  ++at_;
  return true;
}

bool ToolCallParser::TakeStructure(char byte, Piece& piece) {
  const auto take = [this](State next) {
    ++at_;
    state_ = next;
    return true;
  };
  const auto scan = [&](State next) {
    scanner_ = {};
    scanned_.clear();
    state_ = next;
    return TakeScanned(byte, piece);
  };
  switch (state_) {
    case State::kObject:
      return byte == '{' && take(State::kFirstMember);
    case State::kFirstMember:
      if (byte == '}') return EndCall(piece);
      [[fallthrough]];
    case State::kMember:
      return byte == '"' && scan(State::kKey);
    case State::kColon:
      return byte == ':' && take(State::kValueBegin);
    case State::kValueBegin:
      return scan(State::kValue);
    default:
      if (byte == '}') return EndCall(piece);
      return byte == ',' && take(State::kMember);
  }
}

bool ToolCallParser::TakeScanned(char byte, Piece& piece) {
  const JsonScanner::Step step = scanner_.Push(byte);
  if (step == JsonScanner::Step::kBroken) return false;
  if (step != JsonScanner::Step::kPast) {
    ++at_;
    if (state_ == State::kKey || member_ != Member::kOther) scanned_ += byte;
  }
  if (step == JsonScanner::Step::kInside) return true;
  return state_ == State::kKey ? EndKey() : EndValue(piece);
}

// Of two members of one name the first counts.
bool ToolCallParser::EndKey() {
  const std::optional<std::string> key = StringOf(std::exchange(scanned_, {}));
  if (!key) return false;
  member_ = Member::kOther;
  if (*key == "name" && !named_) member_ = Member::kName;
  if (*key == "arguments" && !has_arguments_) member_ = Member::kArguments;
  state_ = State::kColon;
  return true;
}

bool ToolCallParser::EndValue(Piece& piece) {
  state_ = State::kNext;
  clean_ &= scanner_.clean();
  if (member_ == Member::kName) return BeginCall(piece);
  if (member_ == Member::kArguments) {
    has_arguments_ = true;
    arguments_ = std::exchange(scanned_, {});
    if (named_) ShowArguments(std::exchange(arguments_, {}), piece);
  }
  return true;
}

// Its name is complete.
bool ToolCallParser::BeginCall(Piece& piece) {
  std::optional<std::string> name = StringOf(std::exchange(scanned_, {}));
  if (!name || name->empty()) return false;
  named_ = true;
  piece.calls.push_back({.index = calls_,
                         .id = fmt::format("{}{}", options_.id_prefix, calls_),
                         .name = ToolNamed(*std::move(name)),
                         .arguments = {}});
  ++calls_;
  ShowArguments(std::exchange(arguments_, {}), piece);
  return true;
}

bool ToolCallParser::EndCall(Piece& piece) {
  if (!named_) return false;
  ++at_;
  if (!has_arguments_) ShowArguments("{}", piece);
  errors_ += clean_ ? 0 : 1;
  LeaveCall();
  return true;
}

void ToolCallParser::Break(Piece& piece) {
  errors_ += cut_ ? 0 : 1;
  if (!named_) return GiveBack(piece);
  if (state_ == State::kValue && member_ == Member::kArguments) {
    ShowArguments(std::exchange(scanned_, {}), piece);
  }
  if (has_arguments_) {
    LeaveCall();
  } else {
    begin_ = at_;
    brace_ = 0;
    state_ = State::kRaw;
  }
}

// It is no call, or at least not up to its tag: what follows may hold one.
void ToolCallParser::GiveBack(Piece& piece) {
  if (calls_ == 0) piece.content.append(held_, begin_, opening_);
  begin_ += opening_;
  at_ = begin_;
  state_ = State::kText;
}

void ToolCallParser::LeaveCall() {
  begin_ = at_;
  state_ = options_.parallel ? State::kText : State::kFinished;
}

// True once the call is over. Held back is what the end may turn out to be: white space, the call's
// brace, white space, the tag.
bool ToolCallParser::ReadRaw(bool at_end, Piece& piece) {
  const size_t tag = held_.find(kToolCallClose, at_);
  const bool over = at_end || tag != std::string::npos;
  const size_t end =
      over ? std::min(tag, held_.size()) : held_.size() - OverlapWithStart(held_, kToolCallClose);
  size_t shown = 0;  // from begin_ on
  for (; at_ < end; ++at_) {
    if (IsJsonWhitespace(held_[at_])) continue;
    const size_t after = at_ + 1 - begin_;
    if (held_[at_] == '}') {
      shown = std::max(shown, brace_);
      brace_ = after;
    } else {
      shown = after;
      brace_ = 0;
    }
  }
  ShowArguments(held_.substr(begin_, shown), piece);
  begin_ += shown;
  if (brace_ > 0) brace_ -= shown;
  if (over) LeaveCall();
  return over;
}

void ToolCallParser::ShowArguments(std::string arguments, Piece& piece) {
  if (arguments.empty()) return;
  piece.calls.push_back(
      {.index = calls_ - 1, .id = {}, .name = {}, .arguments = std::move(arguments)});
}

std::string ToolCallParser::ToolNamed(std::string written) const {
  if (std::ranges::find(options_.tools, written) != options_.tools.end()) return written;
  const std::string* meant = nullptr;
  for (const std::string& tool : options_.tools) {
    if (!MayMean(written, tool)) continue;
    if (meant != nullptr && *meant != tool) return written;
    meant = &tool;
  }
  return meant == nullptr ? written : *meant;
}

std::string CallIdPrefix(std::string_view request_id, std::span<const int32_t> prompt, int choice) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto add = [&hash](uint8_t byte) { hash = (hash ^ byte) * 0x100000001b3; };
  for (const char c : request_id) add(static_cast<uint8_t>(c));
  for (const int32_t id : prompt) {
    for (int shift = 0; shift < 32; shift += 8) {
      add(static_cast<uint8_t>(static_cast<uint32_t>(id) >> shift));
    }
  }
  return fmt::format("call_{:016x}_{}_", hash, choice);
}

}  // namespace bottega::gateway
