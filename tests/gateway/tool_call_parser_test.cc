#include "gateway/tool_call_parser.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace bottega::gateway {
namespace {

using Calls = std::vector<std::pair<std::string, std::string>>;  // name, arguments

struct Folded {
  std::string content;
  Calls calls;
  int errors = 0;
};

struct Case {
  const char* name;
  std::string text;
  Folded folded;
};

const std::string kCall = R"(<tool_call>
{"name": "get_weather", "arguments": {"city": "Forlì"}}
</tool_call>)";
const Calls kCalled = {{"get_weather", R"({"city": "Forlì"})"}};

std::string Object(const std::string& members) {
  return "<tool_call>{" + members + "}</tool_call>";
}

const Case kCases[] = {
    {"no_call",
     "a <b> and\n <tool_cal and {\"name\": 1} \n",
     {"a <b> and\n <tool_cal and {\"name\": 1} \n", {}}},
    {"nothing", "", {"", {}}},
    {"one", kCall, {"", kCalled}},
    {"text_before", "Let me look.\n" + kCall, {"Let me look.", kCalled}},
    {"space_before", " \n" + kCall, {"", kCalled}},
    {"text_after_is_dropped", "a" + kCall + "\nand so <tool_", {"a", kCalled}},
    {"two",
     kCall + "\n" + Object(R"("name":"get_time","arguments":{"city":"Rome"})"),
     {"", {kCalled[0], {"get_time", R"({"city":"Rome"})"}}}},
    {"three_and_text_between",
     "x" + kCall + "y" + kCall + "z" + kCall,
     {"x", {kCalled[0], kCalled[0], kCalled[0]}}},
    {"own_bytes",
     Object(R"("name":"f","arguments":   { "b" :1.50,  "a":"\u00e8è" , "b":[ ] }  )"),
     {"", {{"f", R"({ "b" :1.50,  "a":"\u00e8è" , "b":[ ] })"}}}},
    {"braces_and_quotes_in_strings",
     Object(R"("name":"f","arguments":{"a":"}{\"}]\\","b":{"c":[{"d":"\\\""}]}})"),
     {"", {{"f", R"({"a":"}{\"}]\\","b":{"c":[{"d":"\\\""}]}})"}}}},
    {"closing_tag_in_a_string",
     Object(R"("name":"f","arguments":{"a":"</tool_call> <tool_call>{"})"),
     {"", {{"f", R"({"a":"</tool_call> <tool_call>{"})"}}}},
    {"arguments_first",
     Object(R"("arguments":{"a":[1,2]},"name":"f")"),
     {"", {{"f", R"({"a":[1,2]})"}}}},
    {"other_members",
     Object(R"("id":7,"type":"function","name":"f","x":{"name":"g"},"arguments":{},"y":null)"),
     {"", {{"f", "{}"}}}},
    {"first_of_two_counts",
     Object(R"("name":"f","name":"g","arguments":{"a":1},"arguments":{"a":2})"),
     {"", {{"f", R"({"a":1})"}}}},
    {"no_arguments", Object(R"("name":"f")"), {"", {{"f", "{}"}}}},
    {"arguments_as_a_string",
     Object(R"("name":"f","arguments":"{\"a\": \"è\"}")"),
     {"", {{"f", R"("{\"a\": \"è\"}")"}}}},
    {"arguments_of_other_kinds",
     Object(R"("name":"f","arguments":null)") + Object(R"("name":"g","arguments":-12 )") +
         Object(R"("arguments":3,"name":"h")"),
     {"", {{"f", "null"}, {"g", "-12"}, {"h", "3"}}}},
    {"escapes_in_the_name",
     Object(R"("n\u0061me":"\u0066\n\u00e8\ud83d\ude00","arguments":{})"),
     {"", {{"f\nè😀", "{}"}}}},
    {"unclosed", kCall.substr(0, kCall.size() - 13), {"", kCalled}},
    {"tag_cut", kCall.substr(0, kCall.size() - 3), {"", kCalled}},
    {"closing_tag_forgotten",
     "<tool_call>{\"name\":\"f\"}\n" + kCall,
     {"", {{"f", "{}"}, kCalled[0]}}},
    {"a_brace_too_many", Object(R"("name":"f","arguments":{}})"), {"", {{"f", "{}"}}}},

    // Never a call.
    {"no_json",
     "a <tool_call>nothing</tool_call> b",
     {"a <tool_call>nothing</tool_call> b", {}, 1}},
    {"an_array",
     "\n\n<tool_call>[{\"name\":\"f\"}]</tool_call>",
     {"\n\n<tool_call>[{\"name\":\"f\"}]</tool_call>", {}, 1}},
    {"no_name", Object(R"("arguments":{"a":1})"), {Object(R"("arguments":{"a":1})"), {}, 1}},
    {"empty_object", Object(""), {Object(""), {}, 1}},
    {"empty_name", Object(R"("name":"")"), {Object(R"("name":"")"), {}, 1}},
    {"name_is_no_string", Object(R"("name":["f"])"), {Object(R"("name":["f"])"), {}, 1}},
    {"name_is_half_a_character",
     Object(R"("name":"\ud83d")"),
     {Object(R"("name":"\ud83d")"), {}, 1}},
    {"single_quotes", Object("'name':'f'"), {Object("'name':'f'"), {}, 1}},
    {"broken_arguments_before_the_name",
     Object(R"("arguments":{a},"name":"f")"),
     {Object(R"("arguments":{a},"name":"f")"), {}, 1}},
    {"ends_before_the_name", "a <tool_call>{\"na", {"a <tool_call>{\"na", {}, 1}},
    {"ends_after_held_arguments",
     "<tool_call>{\"arguments\":{\"a\":1},\"name\":\"f",
     {"<tool_call>{\"arguments\":{\"a\":1},\"name\":\"f", {}, 1}},
    {"a_call_in_what_was_none",
     "<tool_call> <tool_call>no</tool_call> " + kCall,
     {"<tool_call> <tool_call>no</tool_call>", kCalled, 2}},
    {"a_call_in_a_string_of_what_was_none",
     "<tool_call>{\"a\":\"" + kCall,
     {"<tool_call>{\"a\":\"", kCalled, 1}},
    {"broken_after_a_call_is_dropped",
     kCall + "<tool_call>no</tool_call>" + kCall,
     {"", {kCalled[0], kCalled[0]}, 1}},

    // Broken, but a call.
    {"python_literals",
     "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": True, \"b\": None}}\n</tool_call>",
     {"", {{"f", R"({"a": True, "b": None})"}}, 1}},
    {"trailing_comma",
     Object(R"("name":"f","arguments":{"a":1,})"),
     {"", {{"f", R"({"a":1,})"}}, 1}},
    {"raw_newline_in_a_string",
     Object("\"name\":\"f\",\"arguments\":{\"a\":\"x\n</tool_call>\"}"),
     {"", {{"f", "{\"a\":\"x\n</tool_call>\"}"}}, 1}},
    {"unknown_escape",
     Object(R"("name":"f","arguments":{"a":"\d+"})"),
     {"", {{"f", R"({"a":"\d+"})"}}, 1}},
    {"a_brace_too_few",
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}\n</tool_call>" + kCall,
     {"", {{"f", "{\"a\":1}"}, kCalled[0]}, 1}},
    {"broken_between_name_and_arguments",
     "<tool_call>{\"name\":\"f\", arguments: {\"a\":1} } </tool_call>" + kCall,
     {"", {{"f", "arguments: {\"a\":1}"}, kCalled[0]}, 1}},
    {"broken_and_unclosed",
     "<tool_call>{\"name\":\"f\",\"arguments\":{a: 1, b: </tool",
     {"", {{"f", "{a: 1, b: </tool"}}, 1}},
    {"ends_in_the_arguments",
     "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": \"x",
     {"", {{"f", "{\"a\": \"x"}}, 1}},
    {"ends_after_the_name", "<tool_call>{\"name\":\"f\", \"arg", {"", {{"f", ""}}, 1}},
};

const ToolCallParser::Options kOptions = {
    .tools = {"get_weather", "disk.usage", "net.a_b", "net_a.b"}, .id_prefix = "call_7_"};

// Folds as a client does; what is no order a client could follow is a failure.
class Client {
 public:
  void Take(const ToolCallParser::Piece& piece) {
    EXPECT_TRUE(piece.content.empty() || folded.calls.empty()) << "text after a call";
    folded.content += piece.content;
    for (const ToolCallDelta& call : piece.calls) {
      if (!call.id.empty()) {
        EXPECT_EQ(call.index, static_cast<int>(folded.calls.size()));
        EXPECT_EQ(call.id, "call_7_" + std::to_string(call.index));
        EXPECT_TRUE(call.arguments.empty());
        EXPECT_FALSE(call.name.empty());
        folded.calls.emplace_back(call.name, "");
      } else {
        EXPECT_TRUE(call.name.empty());
        EXPECT_FALSE(call.arguments.empty());
        ASSERT_EQ(call.index + 1, static_cast<int>(folded.calls.size()));
        folded.calls.back().second += call.arguments;
      }
    }
  }
  Folded folded;
};

Folded Fold(const std::vector<std::string>& pieces, ToolCallParser::Options options = kOptions) {
  ToolCallParser parser(std::move(options));
  Client client;
  for (const std::string& piece : pieces) client.Take(parser.Push(piece));
  client.Take(parser.Finish(false));
  EXPECT_EQ(parser.calls(), static_cast<int>(client.folded.calls.size()));
  client.folded.errors = parser.errors();
  return client.folded;
}

void ExpectSame(const Folded& a, const Folded& b) {
  EXPECT_EQ(a.content, b.content);
  EXPECT_EQ(a.calls, b.calls);
  EXPECT_EQ(a.errors, b.errors);
}

class ToolCallParserTest : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Cases, ToolCallParserTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

TEST_P(ToolCallParserTest, EveryTwoCutsGiveOneAnswer) {
  const std::string& text = GetParam().text;
  for (size_t i = 0; i <= text.size() && !HasFailure(); ++i) {
    for (size_t j = i; j <= text.size() && !HasFailure(); ++j) {
      SCOPED_TRACE(testing::Message() << "cut at " << i << " and " << j);
      ExpectSame(Fold({text.substr(0, i), text.substr(i, j - i), text.substr(j)}),
                 GetParam().folded);
    }
  }
}

TEST_P(ToolCallParserTest, ByteByByteAndInRandomPieces) {
  const std::string& text = GetParam().text;
  std::mt19937 random(1);
  for (size_t longest = 1; longest <= 20; ++longest) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size(); at += pieces.back().size()) {
      pieces.push_back(text.substr(at, 1 + random() % longest));
    }
    SCOPED_TRACE(testing::Message() << "pieces of up to " << longest);
    ExpectSame(Fold(pieces), GetParam().folded);
  }
}

// What no rule foresees: cases mixed with each other, bytes changed.
TEST(ToolCallParser, TheCutOfMixedTextDoesNotMatter) {
  std::mt19937 random(1);
  for (int i = 0; i < 20'000 && !testing::Test::HasFailure(); ++i) {
    std::string text;
    for (int part = 0; part < 3; ++part) {
      const std::string& from = kCases[random() % std::size(kCases)].text;
      if (from.empty()) continue;
      const size_t at = random() % from.size();
      text += random() % 2 == 0 ? from : from.substr(at, random() % from.size());
    }
    if (!text.empty() && random() % 2 == 0) {
      text[random() % text.size()] = "{}[]\",:\\ \n<>a"[random() % 13];
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < text.size(); at += pieces.back().size()) {
      pieces.push_back(text.substr(at, 1 + random() % 9));
    }
    SCOPED_TRACE(text);
    ToolCallParser::Options options = kOptions;
    options.parallel = i % 4 != 0;
    ExpectSame(Fold(pieces, options), Fold({text}, options));
  }
}

TEST(ToolCallParser, WhatIsCertainLeavesAtOnce) {
  ToolCallParser parser(kOptions);
  EXPECT_EQ(parser.Push("Let me").content, "Let me");
  EXPECT_EQ(parser.Push(" ").content, "");
  EXPECT_EQ(parser.Push("see <too").content, " see");
  EXPECT_EQ(parser.Push("ls>").content, " <tools>");
  EXPECT_EQ(parser.Push("\n<tool_call>\n{\"name\": \"f").calls.size(), 0u);
  const ToolCallParser::Piece named = parser.Push("\", \"arguments\": ");
  ASSERT_EQ(named.calls.size(), 1u);
  EXPECT_EQ(named.calls[0].name, "f");
  EXPECT_EQ(named.calls[0].id, "call_7_0");
  const auto fragment = [&](const std::string& text) {
    const ToolCallParser::Piece piece = parser.Push(text);
    return piece.calls.empty() ? "" : piece.calls.at(0).arguments;
  };
  EXPECT_EQ(fragment("{\"a\""), "{\"a\"");
  EXPECT_EQ(fragment(": "), ": ");
  EXPECT_EQ(fragment("1}}\n</tool"), "1}");
  EXPECT_EQ(fragment("_call> thanks"), "");
  EXPECT_FALSE(parser.finished());
}

TEST(ToolCallParser, OneCallAtMost) {
  ToolCallParser::Options options = kOptions;
  options.parallel = false;
  ToolCallParser parser(options);
  Client client;
  client.Take(parser.Push("<tool_call>no</tool_call>"));
  EXPECT_FALSE(parser.finished());
  client.Take(parser.Push(kCall.substr(0, kCall.size() - 14)));
  EXPECT_FALSE(parser.finished());
  client.Take(parser.Push("}"));
  EXPECT_TRUE(parser.finished());
  client.Take(parser.Push("\n</tool_call>" + kCall));
  client.Take(parser.Finish(false));
  client.folded.errors = parser.errors();
  ExpectSame(client.folded, {"<tool_call>no</tool_call>", kCalled, 1});
}

TEST(ToolCallParser, WhatALimitCutIsNoError) {
  for (const char* text : {"<tool_call>{\"na", "<tool_call>{\"name\":\"f\",\"arguments\":{\"a"}) {
    ToolCallParser parser(kOptions);
    parser.Push(text);
    parser.Finish(true);
    EXPECT_EQ(parser.errors(), 0) << text;
  }
  ToolCallParser parser(kOptions);
  parser.Push("<tool_call>{name");
  parser.Finish(true);
  EXPECT_EQ(parser.errors(), 1);
}

TEST(ToolCallParser, AnUnderscoreMayBeTheDotOfOneTool) {
  const auto name = [](const std::string& written) {
    return Fold({Object("\"name\":\"" + written + "\"")}).calls.at(0).first;
  };
  EXPECT_EQ(name("disk_usage"), "disk.usage");
  EXPECT_EQ(name("disk.usage"), "disk.usage");
  EXPECT_EQ(name("get_weather"), "get_weather");
  EXPECT_EQ(name("get.weather"), "get.weather");  // nobody's
  EXPECT_EQ(name("net_a_b"), "net_a_b");          // one of two
  EXPECT_EQ(name("net_a.b"), "net_a.b");
  EXPECT_EQ(name("unheard_of"), "unheard_of");
}

TEST(ToolCallParser, IdsAreOfTheRequestItsPromptAndTheChoice) {
  const std::vector<int32_t> prompt = {1, 70000}, longer = {1, 70000, 2};
  const std::string prefix = CallIdPrefix("chatcmpl-a", prompt, 2);
  EXPECT_EQ(prefix, "call_4a7893643daef2a2_2_");  // the same in every process
  EXPECT_NE(prefix, CallIdPrefix("chatcmpl-b", prompt, 2));
  EXPECT_NE(prefix, CallIdPrefix("chatcmpl-a", longer, 2));
  EXPECT_NE(prefix, CallIdPrefix("chatcmpl-a", prompt, 1));
  EXPECT_LE(CallIdPrefix("chatcmpl-a", prompt, 127).size() + 5, 40u);
}

}  // namespace
}  // namespace bottega::gateway
