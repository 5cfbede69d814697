#include "gateway/choice.h"

#include <algorithm>

#include "core/base/check.h"

namespace bottega::gateway {
namespace {

using internal::v1::FinishReason;
using internal::v1::GeneratedToken;

// Parsers look for these after detokenizing, whatever skip_special_tokens says.
constexpr std::string_view kTags[] = {"<think>", "</think>", "<tool_call>", "</tool_call>"};

LoggedToken Logged(const GeneratedToken& token) {
  LoggedToken logged{.id = token.id(), .logprob = token.logprob(), .top = {}};
  for (const auto& top : token.top()) logged.top.emplace_back(top.id(), top.logprob());
  return logged;
}

}  // namespace

Choice::Choice(const GatewayText& text, ChoiceOptions options)
    : text_(text),
      options_(std::move(options)),
      decoder_(text.NewDecoder(options_.skip_special_tokens)),
      stops_(options_.stop, options_.include_stop),
      reasoning_(options_.start) {
  for (std::string_view tag : kTags) {
    const std::optional<int32_t> id = text.IdOf(tag);
    if (id && text.IsSpecial(*id)) kept_special_.push_back(*id);
  }
}

std::optional<ChoiceDelta> Choice::Accept(const GeneratedToken& token) {
  if (ended_) return std::nullopt;
  const TokenLog::Verdict verdict = log_.Append(token.owner_epoch(), token.index(), token.id());
  if (verdict != TokenLog::Verdict::kAppended) return std::nullopt;

  ChoiceDelta delta{.choice = options_.index};
  if (options_.keep_logprobs) delta.logprobs.push_back(Logged(token));
  if (options_.keep_ids) delta.token_ids.push_back(token.id());

  const bool was_in_content = reasoning_.in_content();
  // The id that stopped the sequence is no text, unless it was asked for.
  const bool stopped = token.finish() == FinishReason::FINISH_REASON_STOP;
  std::string text;
  if (!stopped || options_.include_stop) text = Detokenize(token.id());
  if (static_cast<int64_t>(log_.size()) < options_.min_tokens) {
    Show(stops_.Pass(text), delta);
  } else {
    StopStrings::Found found = stops_.Push(text);
    Show(found.text, delta);
    if (found.stop) End(ChoiceEnd{"stop", stops_.text_of(*found.stop)}, delta);
  }
  if (stopped && !ended_) {
    ChoiceEnd end{"stop", {}};
    if (std::ranges::find(options_.eos_ids, token.id()) == options_.eos_ids.end()) {
      end.stop = token.id();
    }
    End(std::move(end), delta);
  } else if (token.finish() == FinishReason::FINISH_REASON_LENGTH && !ended_) {
    End(ChoiceEnd{"length", {}}, delta);
  }
  if (reasoning_.saw_reasoning() && !was_in_content) {
    reasoning_tokens_ = static_cast<int64_t>(log_.size());
  }
  return delta;
}

ChoiceDelta Choice::EndWithout(FinishReason finish) {
  CHECK(!ended_);
  ChoiceDelta delta{.choice = options_.index};
  const bool stop = finish == FinishReason::FINISH_REASON_STOP;
  End(ChoiceEnd{stop ? "stop" : "length", {}}, delta);
  return delta;
}

std::string Choice::Detokenize(int32_t id) {
  if (options_.skip_special_tokens && std::ranges::find(kept_special_, id) != kept_special_.end()) {
    return decoder_->Flush() + text_.Text(id);
  }
  return decoder_->Push(id);
}

void Choice::Show(const std::string& text, ChoiceDelta& delta) {
  ReasoningParser::Piece piece = reasoning_.Push(text);
  delta.reasoning += piece.reasoning;
  delta.content += piece.content;
  delta.in_content = reasoning_.in_content();
  delta.saw_reasoning = reasoning_.saw_reasoning();
}

// What any stage holds back belongs to the answer, except after a stop string: then the rest of
// the token is overshoot.
void Choice::End(ChoiceEnd end, ChoiceDelta& delta) {
  ended_ = true;
  if (!std::holds_alternative<std::string>(end.stop)) {
    StopStrings::Found found = stops_.Push(decoder_->Flush());
    Show(found.text, delta);
    if (found.stop) {
      end = ChoiceEnd{"stop", stops_.text_of(*found.stop)};
    } else {
      Show(stops_.Finish(), delta);
    }
  }
  ReasoningParser::Piece rest = reasoning_.Finish();
  delta.reasoning += rest.reasoning;
  delta.content += rest.content;
  delta.in_content = reasoning_.in_content();
  delta.saw_reasoning = reasoning_.saw_reasoning();
  delta.end = std::move(end);
}

}  // namespace bottega::gateway
