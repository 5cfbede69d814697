#include "gateway/plain_text.h"

#include <gtest/gtest.h>

namespace bottega::gateway {
namespace {

const std::vector<std::string> kTokens = {"<a>", "<a>b", "/turbo", "<｜x｜>", "▁"};

Json User(const std::string& text) { return {{"role", "user"}, {"content", text}}; }

TEST(PlainText, WhatSpellsNoTokenIsLeftAlone) {
  PlainTextMarks marks(kTokens);
  Json messages = {User("plain <b> text ▁")};
  marks.Mark(messages);
  EXPECT_FALSE(marks.any());
  EXPECT_EQ(messages[0]["content"], "plain <b> text ▁");
}

TEST(PlainText, SpellingsBecomePiecesOfTheirOwn) {
  PlainTextMarks marks(kTokens);
  Json messages = {User("see /turbo"), {{"role", "assistant"}, {"content", "<a>"}}, User("<a>b")};
  marks.Mark(messages);
  EXPECT_TRUE(marks.any());
  std::string rendered;
  for (const Json& message : messages) rendered += "<a>:" + message["content"].get<std::string>();
  EXPECT_EQ(marks.Restore(rendered), "<a>:see /turbo<a>:<a><a>:<a>b");
  EXPECT_EQ(marks.Split(rendered),
            (std::vector<std::string>{"<a>", ":see /turbo", "<a>:<a><a>", ":<a>b", ""}));
}

TEST(PlainText, TokensThatBeginWithManyBytesAreMarkedBetweenCharacters) {
  const std::vector<std::string> tokens = {"｜｜"};
  PlainTextMarks marks(tokens);
  Json messages = {User("x｜｜y")};
  marks.Mark(messages);
  const std::string marked = messages[0]["content"];
  EXPECT_EQ(marked.find("｜｜"), std::string::npos);
  EXPECT_EQ(marks.Restore(marked), "x｜｜y");
  EXPECT_EQ(DumpJson(messages).find("\xEF\xBF\xBD"), std::string::npos);  // still UTF-8
}

TEST(PlainText, PartsAndToolResultsAreMarkedToo) {
  PlainTextMarks marks(kTokens);
  Json messages = {{{"role", "tool"}, {"content", "<a>"}},
                   {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "/turbo"}}}}}};
  marks.Mark(messages);
  EXPECT_NE(messages[0]["content"], "<a>");
  EXPECT_NE(messages[1]["content"][0]["text"], "/turbo");
}

}  // namespace
}  // namespace bottega::gateway
