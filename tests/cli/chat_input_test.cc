#include "cli/chat_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/answer_printer.h"
#include "cli/http_client.h"

namespace bottega {
namespace {

using ::testing::HasSubstr;
using Kind = ChatTurn::Kind;

class ChatInputTest : public ::testing::Test {
 protected:
  // The kind of turn that `line` makes; the text of it is `text_`.
  Kind Line(const std::string& line) {
    const ChatTurn turn = input_.Line(line);
    text_ = turn.text;
    return turn.kind;
  }

  ChatSettings settings_;
  ChatInput input_{settings_};
  std::string text_;
};

TEST_F(ChatInputTest, MessagesAndEmptyLines) {
  EXPECT_EQ(Line("  Ciao, come stai?  "), Kind::kAsk);
  EXPECT_EQ(text_, "Ciao, come stai?");
  EXPECT_EQ(Line(""), Kind::kNothing);
  EXPECT_EQ(Line("   \t"), Kind::kNothing);
  EXPECT_EQ(Line("\"quoted\""), Kind::kAsk);
}

TEST_F(ChatInputTest, BlocksOfSeveralLines) {
  EXPECT_EQ(Line("\"\"\"first"), Kind::kNothing);
  EXPECT_TRUE(input_.in_block());
  EXPECT_EQ(Line("  /bye is text here"), Kind::kNothing);
  EXPECT_EQ(Line(""), Kind::kNothing);
  EXPECT_EQ(Line("last\"\"\"  "), Kind::kAsk);
  EXPECT_EQ(text_, "first\n  /bye is text here\n\nlast");
  EXPECT_FALSE(input_.in_block());

  EXPECT_EQ(Line("\"\"\"/etc/passwd?\"\"\""), Kind::kAsk);
  EXPECT_EQ(text_, "/etc/passwd?");

  EXPECT_EQ(Line("\"\"\""), Kind::kNothing);
  EXPECT_EQ(Line("  "), Kind::kNothing);
  EXPECT_EQ(Line("\"\"\""), Kind::kNothing);  // nothing to ask
  EXPECT_FALSE(input_.in_block());

  EXPECT_EQ(Line("\"\"\"dropped"), Kind::kNothing);
  input_.DropBlock();
  EXPECT_EQ(Line("kept"), Kind::kAsk);
  EXPECT_EQ(text_, "kept");
}

TEST_F(ChatInputTest, CommandsSetWhatTheySay) {
  EXPECT_EQ(Line("/think turbo"), Kind::kNothing);
  EXPECT_EQ(settings_.think, "turbo");
  EXPECT_EQ(Line("/set think off"), Kind::kNothing);
  EXPECT_EQ(settings_.think, "off");
  EXPECT_EQ(Line("/lang  ita "), Kind::kNothing);
  EXPECT_EQ(settings_.lang, "ita");
  EXPECT_EQ(Line("/set temperature 0.5"), Kind::kNothing);
  EXPECT_EQ(settings_.temperature, 0.5);
  EXPECT_EQ(Line("/set max_tokens 2K"), Kind::kNothing);
  EXPECT_EQ(settings_.max_tokens, 2048);
  EXPECT_EQ(Line("/set seed -7"), Kind::kNothing);
  EXPECT_EQ(settings_.seed, -7);
  EXPECT_EQ(Line("/set system You are  terse."), Kind::kNothing);
  EXPECT_EQ(settings_.system, "You are  terse.");
  EXPECT_EQ(Line("/set stats on"), Kind::kNothing);
  EXPECT_TRUE(settings_.stats);
  EXPECT_EQ(Line("/set hide-reasoning on"), Kind::kNothing);
  EXPECT_TRUE(settings_.hide_reasoning);

  EXPECT_EQ(Line("/show"), Kind::kPrint);
  EXPECT_THAT(text_, HasSubstr("temperature     0.5\n"));
  EXPECT_THAT(text_, HasSubstr("system          You are  terse.\n"));
  EXPECT_THAT(text_, HasSubstr("model           default\n"));

  for (const char* name : {"think", "lang", "temperature", "max-tokens", "seed", "system"}) {
    EXPECT_EQ(Line(std::string("/set ") + name + " default"), Kind::kNothing);
  }
  EXPECT_EQ(settings_.think + settings_.lang + settings_.system, "");
  EXPECT_FALSE(settings_.temperature || settings_.max_tokens || settings_.seed);
}

TEST_F(ChatInputTest, WrongValuesAreRefusedAndChangeNothing) {
  settings_.temperature = 0.25;
  settings_.max_tokens = 7;
  settings_.think = "on";
  for (const char* line :
       {"/set temperature 2.5", "/set temperature -1", "/set temperature nan",
        "/set temperature hot", "/set temperature 1x", "/set max-tokens 0", "/set max-tokens 1.5",
        "/set seed x", "/think maybe", "/lang de", "/set stats perhaps", "/set colour red", "/set",
        "/set think", "/think", "/unknown", "/"}) {
    EXPECT_EQ(Line(line), Kind::kError) << line;
    EXPECT_FALSE(text_.empty());
  }
  EXPECT_EQ(settings_.temperature, 0.25);
  EXPECT_EQ(settings_.max_tokens, 7);
  EXPECT_EQ(settings_.think, "on");
}

TEST_F(ChatInputTest, OtherCommands) {
  EXPECT_EQ(Line("/bye"), Kind::kLeave);
  EXPECT_EQ(Line("/exit"), Kind::kLeave);
  EXPECT_EQ(Line("/clear"), Kind::kClear);
  EXPECT_EQ(Line("/?"), Kind::kPrint);
  EXPECT_THAT(text_, HasSubstr("/think on|off|turbo"));
}

TEST(PrintableTest, TakesOutWhatSteersATerminal) {
  EXPECT_EQ(Printable("plain \xc3\xa8 \xf0\x9f\x98\x80\n\tend"),
            "plain \xc3\xa8 \xf0\x9f\x98\x80\n\tend");
  EXPECT_EQ(Printable("a\x1b[2Jb\x07"
                      "c\rd\x7f"),
            "a[2Jbcd");
  EXPECT_EQ(Printable("a\xc2\x9b"
                      "2Jb\xc2\xa0"),
            "a2Jb\xc2\xa0");
}

TEST(ParseUrlTest, FormsThatAreUnderstood) {
  const struct {
    const char *text, *host, *port, *prefix, *shown;
  } cases[] = {
      {"http://127.0.0.1:8000", "127.0.0.1", "8000", "", "http://127.0.0.1:8000"},
      {"127.0.0.1:8000/", "127.0.0.1", "8000", "", "http://127.0.0.1:8000"},
      {"http://host:1/v1", "host", "1", "", "http://host:1"},
      {"http://host/models/v1/", "host", "80", "/models", "http://host:80/models"},
      {"http://[::1]:9", "::1", "9", "", "http://[::1]:9"},
      {"localhost", "localhost", "80", "", "http://localhost:80"},
  };
  for (const auto& expected : cases) {
    const absl::StatusOr<Url> url = ParseUrl(expected.text);
    ASSERT_TRUE(url.ok()) << expected.text;
    EXPECT_EQ(url->host, expected.host);
    EXPECT_EQ(url->port, expected.port);
    EXPECT_EQ(url->prefix, expected.prefix);
    EXPECT_EQ(url->text, expected.shown);
  }
}

TEST(ParseUrlTest, FormsThatAreRefused) {
  for (const char* text :
       {"", "http://", "https://host", "http://host:", "http://host:x", "http://host:70000",
        "http://[::1:9", "http://a b", "http://u@host", "http://host:80\r\nX: y", "::1:80"}) {
    EXPECT_FALSE(ParseUrl(text).ok()) << text;
  }
}

}  // namespace
}  // namespace bottega
