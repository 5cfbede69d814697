#include "gateway/choice.h"

#include <algorithm>
#include <iterator>

#include "core/base/check.h"

namespace bottega::gateway {
namespace {

using internal::v1::FinishReason;
using internal::v1::GeneratedToken;

// Parsers look for these after detokenizing, whatever skip_special_tokens says.
constexpr std::string_view kTags[] = {kThinkOpen, kThinkClose, kToolCallOpen, kToolCallClose};

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
  if (options_.tools) tools_.emplace(*options_.tools);
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
    if (found.stop) {
      End(ChoiceEnd{"stop", stops_.text_of(*found.stop)}, delta);
    } else if (tools_ && tools_->finished()) {
      End(ChoiceEnd{"stop", {}}, delta);
    }
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
  AddReasoned(reasoning_.Push(text), delta);
}

void Choice::AddReasoned(ReasoningParser::Piece piece, ChoiceDelta& delta) {
  delta.reasoning += piece.reasoning;
  delta.in_content = reasoning_.in_content();
  delta.saw_reasoning = reasoning_.saw_reasoning();
  if (tools_) {
    AddContent(tools_->Push(piece.content), delta);
  } else {
    delta.content += piece.content;
  }
}

void Choice::AddContent(ToolCallParser::Piece piece, ChoiceDelta& delta) {
  delta.content += piece.content;
  std::ranges::move(piece.calls, std::back_inserter(delta.tool_calls));
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
  AddReasoned(reasoning_.Finish(), delta);
  if (tools_) {
    const bool by_model = end.reason == "stop" && std::holds_alternative<std::monostate>(end.stop);
    AddContent(tools_->Finish(!by_model), delta);
    if (end.reason == "stop" && tools_->calls() > 0) end.reason = "tool_calls";
  }
  delta.end = std::move(end);
}

}  // namespace bottega::gateway
