#include "gateway/reasoning_parser.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace bottega::gateway {
namespace {

using Start = ReasoningParser::Start;

struct Case {
  const char* name;
  Start start;
  const char* text;
  const char* reasoning;
  const char* content;  // null: the answer never began
};

const Case kCases[] = {
    {"open_and_close", Start::kDetect, "<think>\nbecause\n</think>\n\nyes", "because", "yes"},
    {"preamble_is_dropped", Start::kDetect, "/reasoning_en\n<think>\na b\n</think>\n\nyes", "a b",
     "yes"},
    {"turbo", Start::kDetect, "/reasoning_ita /turbo <think> breve </think> si", " breve ", " si"},
    {"answers_at_once", Start::kDetect, "plain < answer", "", "plain < answer"},
    {"spaces_before_the_answer", Start::kDetect, " \n plain", "", "plain"},
    {"begins_like_a_tag", Start::kDetect, "<thing>", "", "<thing>"},
    {"begins_like_a_language", Start::kDetect, "/reason", "", "/reason"},
    {"nothing", Start::kDetect, "", "", ""},
    {"never_closed", Start::kDetect, "<think>\nand then\n\nand\n", "and then\n\nand\n", nullptr},
    {"opened_by_the_prompt", Start::kReasoning, "\nbecause\n</think>\nyes\n", "because", "yes\n"},
    {"opened_twice", Start::kReasoning, "<think>\nbecause</think>yes", "because", "yes"},
    {"opened_and_empty", Start::kReasoning, "\n\n</think>\n\nyes", "", "yes"},
    {"opened_and_nothing", Start::kReasoning, "", "", nullptr},
    {"closed_and_nothing", Start::kReasoning, "a</think>\n\n", "a", ""},
    {"first_close_counts", Start::kReasoning, "a</think>b</think>c", "a", "b</think>c"},
    {"almost_a_close", Start::kReasoning, "a</thin b</</think>c", "a</thin b</", "c"},
    {"newlines_inside_stay", Start::kReasoning, "a\n\nb\n\n\n</think>c\n\nd", "a\n\nb", "c\n\nd"},
    {"cut_in_the_close", Start::kReasoning, "a\n</thi", "a\n</thi", nullptr},
    {"off", Start::kContent, "\n<think>a</think>b", "", "\n<think>a</think>b"},
};

class ReasoningParserTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, ReasoningParserTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

void ExpectSplit(const Case& c, const std::vector<std::string>& pieces) {
  ReasoningParser parser(c.start);
  std::string reasoning, content;
  auto take = [&](const ReasoningParser::Piece& piece) {
    reasoning += piece.reasoning;
    content += piece.content;
  };
  for (const std::string& piece : pieces) take(parser.Push(piece));
  take(parser.Finish());
  EXPECT_EQ(reasoning, c.reasoning);
  EXPECT_EQ(content, c.content == nullptr ? "" : c.content);
  EXPECT_EQ(parser.in_content(), c.content != nullptr);
}

TEST_P(ReasoningParserTest, EveryTwoCutsGiveOneSplit) {
  const std::string text = GetParam().text;
  for (size_t i = 0; i <= text.size(); ++i) {
    for (size_t j = i; j <= text.size(); ++j) {
      SCOPED_TRACE(testing::Message() << "cut at " << i << " and " << j);
      ExpectSplit(GetParam(), {text.substr(0, i), text.substr(i, j - i), text.substr(j)});
    }
  }
}

TEST_P(ReasoningParserTest, ByteByByte) {
  std::vector<std::string> bytes;
  for (char c : std::string(GetParam().text)) bytes.emplace_back(1, c);
  ExpectSplit(GetParam(), bytes);
}

TEST(ReasoningParser, NothingThatIsCertainIsHeldBack) {
  ReasoningParser parser(Start::kReasoning);
  EXPECT_EQ(parser.Push("abc").reasoning, "abc");
  EXPECT_EQ(parser.Push(" <").reasoning, " ");
  EXPECT_EQ(parser.Push("b").reasoning, "<b");
  EXPECT_EQ(parser.Push("\n").reasoning, "");
  EXPECT_EQ(parser.Push("c").reasoning, "\nc");
}

TEST(ReasoningParser, StartIsTheLastTagOfTheGenerationPrompt) {
  EXPECT_EQ(StartAfter("<|im_start|>assistant\n"), Start::kDetect);
  EXPECT_EQ(StartAfter("<|im_start|>assistant\n/reasoning_en\n"), Start::kDetect);
  EXPECT_EQ(StartAfter("<|im_start|>assistant\n<think>\n"), Start::kReasoning);
  EXPECT_EQ(StartAfter("<|im_start|>assistant\n<think>\n\n</think>\n\n"), Start::kContent);
  EXPECT_EQ(StartAfter("</think><think>"), Start::kReasoning);
  EXPECT_EQ(StartAfter(""), Start::kDetect);
}

}  // namespace
}  // namespace bottega::gateway
