#include "gateway/choice.h"

#include <gtest/gtest.h>

#include "tests/gateway/fake_text.h"

namespace bottega::gateway {
namespace {

using internal::v1::GeneratedToken;
using Start = ReasoningParser::Start;

struct Folded {
  std::string reasoning, content;
  std::optional<ChoiceEnd> end;
  bool in_content = false;
  size_t logprobs = 0;
  std::vector<ToolCallDelta> calls;
};

class ChoiceTest : public testing::Test {
 protected:
  GeneratedToken Token(int32_t id, uint32_t index) {
    GeneratedToken token;
    token.set_owner_epoch(1);
    token.set_index(index);
    token.set_id(id);
    if (id == FakeText::kEnd) token.set_finish(internal::v1::FINISH_REASON_STOP);
    return token;
  }
  Folded Fold(Choice& choice, const std::vector<int32_t>& ids) {
    Folded folded;
    for (size_t i = 0; i < ids.size() && !choice.ended(); ++i) {
      std::optional<ChoiceDelta> delta = choice.Accept(Token(ids[i], static_cast<uint32_t>(i)));
      if (!delta) continue;
      folded.reasoning += delta->reasoning;
      folded.content += delta->content;
      folded.logprobs += delta->logprobs.size();
      folded.in_content |= delta->in_content;
      for (const ToolCallDelta& call : delta->tool_calls) {
        if (!call.id.empty()) folded.calls.push_back(call);
        if (call.id.empty()) folded.calls[call.index].arguments += call.arguments;
      }
      if (delta->end) folded.end = delta->end;
    }
    return folded;
  }
  std::vector<int32_t> Ids(const std::string& text) { return *text_.Encode(text, {}); }

  FakeText text_;
  ChoiceOptions options_{.start = Start::kDetect, .eos_ids = {FakeText::kEnd}};
};

TEST_F(ChoiceTest, ReasoningThenAnswerThenEos) {
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids("<think>\nab\n</think>\n\nok<|im_end|>"));
  EXPECT_EQ(folded.reasoning, "ab");
  EXPECT_EQ(folded.content, "ok");
  EXPECT_EQ(folded.end->reason, "stop");
  EXPECT_EQ(folded.end->stop.index(), 0u);
  EXPECT_EQ(choice.log().size(), 11u);      // tags, newlines and eos too
  EXPECT_EQ(choice.reasoning_tokens(), 6);  // to the closing tag
}

TEST_F(ChoiceTest, TagsFlaggedSpecialAreParsedAllTheSame) {
  FakeText special(true);
  Choice choice(special, options_);
  Folded folded = Fold(choice, Ids("<think>a</think>b<|im_end|>"));
  EXPECT_EQ(folded.reasoning, "a");
  EXPECT_EQ(folded.content, "b");
}

TEST_F(ChoiceTest, TagsCutAcrossTokens) {
  Choice choice(text_, options_);
  std::vector<int32_t> ids = Ids("<think>a");
  ids.push_back(text_.Word("</thi"));
  ids.push_back(text_.Word("nk>"));
  ids.push_back(text_.Word("answer"));
  Folded folded = Fold(choice, ids);
  EXPECT_EQ(folded.reasoning, "a");
  EXPECT_EQ(folded.content, "answer");
}

TEST_F(ChoiceTest, AStopStringDropsTheOvershootAndDoesNotBillIt) {
  options_.stop = {"lo wor"};
  options_.keep_logprobs = true;
  Choice choice(text_, options_);
  const std::vector<int32_t> ids = {text_.Word("Hello"), text_.Word(" world"),
                                    text_.Word("answer")};
  Folded folded = Fold(choice, ids);
  EXPECT_EQ(folded.content, "Hel");
  EXPECT_EQ(std::get<std::string>(folded.end->stop), "lo wor");
  EXPECT_EQ(choice.log().size(), 2u);
  EXPECT_EQ(folded.logprobs, 2u);
  EXPECT_FALSE(choice.Accept(Token(1, 2)).has_value());
}

TEST_F(ChoiceTest, AStopStringMayBeIncluded) {
  options_.stop = {"STOP"};
  options_.include_stop = true;
  Choice choice(text_, options_);
  EXPECT_EQ(Fold(choice, {text_.Word("Hello"), text_.Word("STOP")}).content, "HelloSTOP");
}

TEST_F(ChoiceTest, MinTokensComeBeforeStopStrings) {
  options_.stop = {"STOP"};
  options_.min_tokens = 2;
  Choice choice(text_, options_);
  const int32_t stop = text_.Word("STOP");
  Folded folded = Fold(choice, {stop, stop, stop});
  EXPECT_EQ(folded.content, "STOP");
  EXPECT_EQ(choice.log().size(), 2u);
}

TEST_F(ChoiceTest, AStopIdIsNoTextAndIsNamed) {
  Choice choice(text_, options_);
  choice.Accept(Token('a', 0));
  GeneratedToken last = Token('b', 1);
  last.set_finish(internal::v1::FINISH_REASON_STOP);
  std::optional<ChoiceDelta> delta = choice.Accept(last);
  EXPECT_EQ(delta->content, "");
  EXPECT_EQ(std::get<int32_t>(delta->end->stop), 'b');
}

TEST_F(ChoiceTest, TheLimitIsALengthAndShowsHalfACharacterAsBroken) {
  Choice choice(text_, options_);
  choice.Accept(Token('a', 0));
  GeneratedToken last = Token(0xC3, 1);
  last.set_finish(internal::v1::FINISH_REASON_LENGTH);
  std::optional<ChoiceDelta> delta = choice.Accept(last);
  EXPECT_EQ(delta->content, "\uFFFD");
  EXPECT_EQ(delta->end->reason, "length");
}

TEST_F(ChoiceTest, OnlyTheNextTokenOfTheOwnerPasses) {
  Choice choice(text_, options_);
  EXPECT_TRUE(choice.Accept(Token('a', 0)).has_value());
  EXPECT_FALSE(choice.Accept(Token('a', 0)).has_value());  // twice
  EXPECT_FALSE(choice.Accept(Token('c', 2)).has_value());  // a gap
  choice.log().NewOwner();
  EXPECT_FALSE(choice.Accept(Token('b', 1)).has_value());  // the old owner woke up
  GeneratedToken token = Token('b', 1);
  token.set_owner_epoch(2);
  EXPECT_TRUE(choice.Accept(token).has_value());
  EXPECT_EQ(choice.log().tokens(), (std::vector<int32_t>{'a', 'b'}));
}

class ToolChoiceTest : public ChoiceTest {
 protected:
  ToolChoiceTest() {
    options_.tools = {.tools = {"f", "g"}, .id_prefix = "call_", .parallel = true};
  }

  const std::string thought_ = "<think>\n<tool_call>{\"name\":\"f\"}</tool_call>\n</think>\n\n";
  const std::string call_ = "<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}\n</tool_call>";
};

TEST_F(ToolChoiceTest, ACallAfterReasoningAndNoneInIt) {
  for (bool special : {false, true}) {
    FakeText text(special);
    Choice choice(text, options_);
    Folded folded = Fold(choice, Ids(thought_ + "so\n" + call_ + "\n" + call_ + "<|im_end|>"));
    EXPECT_EQ(folded.reasoning, "<tool_call>{\"name\":\"f\"}</tool_call>");
    EXPECT_EQ(folded.content, "so");
    ASSERT_EQ(folded.calls.size(), 2u);
    EXPECT_EQ(folded.calls[1].id, "call_1");
    EXPECT_EQ(folded.calls[1].name, "f");
    EXPECT_EQ(folded.calls[1].arguments, "{\"a\":1}");
    EXPECT_EQ(folded.end->reason, "tool_calls");
    EXPECT_EQ(folded.end->stop.index(), 0u);
    EXPECT_EQ(choice.tool_parse_errors(), 0);
  }
}

TEST_F(ToolChoiceTest, WithoutToolsACallIsContent) {
  options_.tools.reset();
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids(call_ + "<|im_end|>"));
  EXPECT_EQ(folded.content, call_);
  EXPECT_TRUE(folded.calls.empty());
  EXPECT_EQ(folded.end->reason, "stop");
}

TEST_F(ToolChoiceTest, ToolsThatAreNotCalledChangeNothing) {
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids("a <tool> b\n<|im_end|>"));
  EXPECT_EQ(folded.content, "a <tool> b\n");
  EXPECT_EQ(folded.end->reason, "stop");
}

TEST_F(ToolChoiceTest, ACallCutByTheLimitIsALength) {
  for (size_t size : {30u, 12u}) {  // in the arguments, in the name
    Choice choice(text_, options_);
    std::vector<int32_t> ids = Ids(call_);
    ids.resize(size);
    Folded folded = Fold(choice, ids);
    ChoiceDelta end = choice.EndWithout(internal::v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(end.end->reason, "length");
    EXPECT_EQ(folded.calls.size(), size == 30 ? 1u : 0u);
    EXPECT_EQ(folded.content + end.content, size == 30 ? "" : call_.substr(0, 22));
    EXPECT_EQ(choice.tool_parse_errors(), 0);
  }
}

TEST_F(ToolChoiceTest, ACallThatTheModelDoesNotEndIsAnError) {
  for (const char* text : {"<tool_call>{\"na<|im_end|>", "<tool_call>{\"name\":\"f\"<|im_end|>"}) {
    Choice choice(text_, options_);
    Fold(choice, Ids(text));
    EXPECT_EQ(choice.tool_parse_errors(), 1) << text;
  }
}

TEST_F(ToolChoiceTest, StopStringsComeBeforeCalls) {
  options_.stop = {"\"a\""};
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids(call_));
  ASSERT_EQ(folded.calls.size(), 1u);
  EXPECT_EQ(folded.calls[0].arguments, "{");
  EXPECT_EQ(folded.end->reason, "tool_calls");
  EXPECT_EQ(std::get<std::string>(folded.end->stop), "\"a\"");
  EXPECT_EQ(choice.tool_parse_errors(), 0);  // the model did not end there
}

TEST_F(ToolChoiceTest, OneCallAtMostEndsTheChoiceWithIt) {
  options_.tools->parallel = false;
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids(call_ + call_ + "<|im_end|>"));
  ASSERT_EQ(folded.calls.size(), 1u);
  EXPECT_EQ(folded.calls[0].arguments, "{\"a\":1}");
  EXPECT_EQ(folded.end->reason, "tool_calls");
  EXPECT_EQ(choice.log().size(),
            Ids("<tool_call>\n{\"name\":\"f\",\"arguments\":{\"a\":1}}").size());

  options_.min_tokens = 200;
  Choice longer(text_, options_);
  const std::vector<int32_t> ids = Ids(call_ + std::string(200, ' ') + call_);
  folded = Fold(longer, ids);
  EXPECT_EQ(folded.calls.size(), 1u);
  EXPECT_EQ(longer.log().size(), 200u);
}

TEST_F(ToolChoiceTest, EveryTokenKeepsItsLogprob) {
  options_.keep_logprobs = options_.keep_ids = true;
  Choice choice(text_, options_);
  const std::vector<int32_t> ids = Ids(thought_ + call_ + "<|im_end|>");
  EXPECT_EQ(Fold(choice, ids).logprobs, ids.size());
}

TEST_F(ChoiceTest, CutInReasoningThereIsNoAnswer) {
  Choice choice(text_, options_);
  Folded folded = Fold(choice, Ids("<think>a\n"));
  ChoiceDelta end = choice.EndWithout(internal::v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(folded.reasoning + end.reasoning, "a\n");
  EXPECT_FALSE(end.in_content);
  EXPECT_TRUE(end.saw_reasoning);
  EXPECT_EQ(choice.reasoning_tokens(), 3);
}

}  // namespace
}  // namespace bottega::gateway
