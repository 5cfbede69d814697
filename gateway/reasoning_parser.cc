#include "gateway/reasoning_parser.h"

#include <algorithm>

#include "gateway/stop_strings.h"

namespace bottega::gateway {
namespace {

// What EngGPT2 may write before `<think>`.
constexpr std::string_view kPreamble[] = {"/reasoning_en", "/reasoning_ita", "/turbo"};
constexpr std::string_view kWhitespace = " \t\r\n";

bool MayBecome(std::string_view text, std::string_view word) {
  return text.size() < word.size() && word.starts_with(text);
}

void DropLeading(std::string& text, std::string_view characters) {
  text.erase(0, std::min(text.find_first_not_of(characters), text.size()));
}

}  // namespace

ReasoningParser::ReasoningParser(Start start)
    : detect_(start == Start::kDetect),
      state_(start == Start::kContent ? State::kContent : State::kOpening),
      saw_reasoning_(start == Start::kReasoning),
      trim_reasoning_(start == Start::kReasoning) {}

ReasoningParser::Piece ReasoningParser::Push(std::string_view text) {
  held_ += text;
  Piece piece;
  Run(false, piece);
  return piece;
}

ReasoningParser::Piece ReasoningParser::Finish() {
  Piece piece;
  Run(true, piece);
  return piece;
}

void ReasoningParser::Run(bool at_end, Piece& piece) {
  if (state_ == State::kOpening && !RunOpening(at_end)) return;
  if (state_ == State::kReasoning && !RunReasoning(at_end, piece)) return;
  if (state_ == State::kContent) RunContent(piece);
}

// True once it is decided where the text belongs.
bool ReasoningParser::RunOpening(bool at_end) {
  while (true) {
    DropLeading(held_, detect_ ? kWhitespace : "\n");
    if (held_.starts_with(kThinkOpen)) {
      held_.erase(0, kThinkOpen.size());
      state_ = State::kReasoning;
      saw_reasoning_ = true;
      trim_reasoning_ = true;
      return true;
    }
    bool wait = held_.empty() || MayBecome(held_, kThinkOpen);
    bool skipped = false;
    for (std::string_view word : kPreamble) {
      if (!detect_) break;
      if (held_.starts_with(word)) {
        held_.erase(0, word.size());
        skipped = true;
        break;
      }
      wait |= MayBecome(held_, word);
    }
    if (skipped) continue;
    if (wait && !at_end) return false;
    // Nothing at all is an empty answer only where the model was free to answer at once.
    state_ = detect_ ? State::kContent : State::kReasoning;
    return true;
  }
}

// True once the closing tag was seen.
bool ReasoningParser::RunReasoning(bool at_end, Piece& piece) {
  if (trim_reasoning_) {
    DropLeading(held_, "\n");
    if (held_.empty()) return false;
    trim_reasoning_ = false;
  }
  const size_t close = held_.find(kThinkClose);
  if (close != std::string::npos) {
    const size_t text_end = held_.find_last_not_of('\n', close == 0 ? 0 : close - 1);
    const size_t size = close == 0 || text_end == std::string::npos ? 0 : text_end + 1;
    piece.reasoning.append(held_, 0, size);
    held_.erase(0, close + kThinkClose.size());
    state_ = State::kContent;
    trim_content_ = true;
    return true;
  }
  size_t safe = held_.size();
  if (!at_end) {
    safe -= OverlapWithStart(held_, kThinkClose);
    while (safe > 0 && held_[safe - 1] == '\n') --safe;
  }
  piece.reasoning.append(held_, 0, safe);
  held_.erase(0, safe);
  return false;
}

void ReasoningParser::RunContent(Piece& piece) {
  if (trim_content_) {
    DropLeading(held_, "\n");
    if (held_.empty()) return;
    trim_content_ = false;
  }
  piece.content += held_;
  held_.clear();
}

ReasoningParser::Start StartAfter(std::string_view generation_prompt) {
  const size_t open = generation_prompt.rfind(kThinkOpen);
  const size_t close = generation_prompt.rfind(kThinkClose);
  if (open == std::string_view::npos && close == std::string_view::npos) {
    return ReasoningParser::Start::kDetect;
  }
  const bool closed =
      close != std::string_view::npos && (open == std::string_view::npos || close > open);
  return closed ? ReasoningParser::Start::kContent : ReasoningParser::Start::kReasoning;
}

}  // namespace bottega::gateway
