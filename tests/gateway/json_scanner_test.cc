#include "gateway/json_scanner.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>

#include "core/base/limits.h"
#include "gateway/json.h"

namespace bottega::gateway {
namespace {

using Step = JsonScanner::Step;

// How many bytes the value at the start of `text` has; nothing: it is broken, or goes on.
std::optional<size_t> ValueSize(const std::string& text, bool* clean = nullptr) {
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    const Step step = scanner.Push(text[i]);
    if (clean != nullptr) *clean = scanner.clean();
    if (step == Step::kBroken) return std::nullopt;
    if (step == Step::kLast) return i + 1;
    if (step == Step::kPast) return i;
  }
  return std::nullopt;
}

TEST(JsonScanner, AValueEndsWhereItEnds) {
  for (const char* value : {"{}", "[]", R"({"a":1})", R"({ "a" : [ 1 , {} , [] ] , "b" : null })",
                            R"("")", R"("a\"b\\")", R"("}]\u00e8")", "true", "false", "null", "0",
                            "-0.5e+10", "12.25", "7E3", R"([-1,2e9,0,"è"])"}) {
    EXPECT_EQ(ValueSize(value + std::string("}")), std::string(value).size()) << value;
  }
}

TEST(JsonScanner, WhatIsNoJsonIsBroken) {
  for (const char* text :
       {"}",     "]",         ":",        ",",          "'a'",  "True",       "nul}",
        "{a:1}", "{\"a\" 1}", "{\"a\":}", "{\"a\":1,}", "{,}",  "[1,]",       "[,]",
        "[1 2]", "{\"a\":1]", "[1}",      "-}",         "-a",   "01",         "1.}",
        "1e}",   "1e+}",      "+1",       ".5",         "[1.]", "{\"a\":01}", "{1:2}"}) {
    EXPECT_EQ(ValueSize(text + std::string("  ")), std::nullopt) << text;
  }
}

TEST(JsonScanner, AStringEndsWhateverIsWrongInIt) {
  bool clean = true;
  for (const char* value : {"\"a\nb\"", R"("\d+")", R"("\u12")", R"("\u12\"")", R"({"a":"\'"})"}) {
    EXPECT_EQ(ValueSize(value, &clean), std::string(value).size()) << value;
    EXPECT_FALSE(clean) << value;
  }
  EXPECT_TRUE(ValueSize(R"("\"\\\/\b\f\n\r\t\uAb09")", &clean).has_value());
  EXPECT_TRUE(clean);
}

TEST(JsonScanner, DepthIsLimited) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(ValueSize(nested(limits::kJsonDepthMax)).has_value());
  EXPECT_FALSE(ValueSize(nested(limits::kJsonDepthMax + 1)).has_value());
}

// A whole object or array is one for the scanner, clean, when it is one for nlohmann.
TEST(JsonScanner, AgreesWithAnotherParserOnRandomText) {
  const std::string alphabet = "{}[]\",:\\un0a1-.eE+ \ntrue";
  const std::string seeds[] = {R"({"a":[1,-2.5e3,{"b":"\u00e8\n"}],"c":null})", "[true,false,[]]"};
  std::mt19937 random(1);
  int valid = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string text = seeds[random() % std::size(seeds)];
    for (size_t edits = random() % 4; edits > 0; --edits) {
      const size_t at = random() % text.size();
      const char byte = alphabet[random() % alphabet.size()];
      random() % 2 == 0 ? text.replace(at, 1, 1, byte) : text.insert(at, 1, byte);
    }
    if ((text[0] != '{' && text[0] != '[') || IsJsonWhitespace(text.back())) continue;
    bool clean = true;
    const bool one = ValueSize(text, &clean) == text.size() && clean;
    ASSERT_EQ(one, Json::accept(text)) << text;
    valid += one;
  }
  EXPECT_GT(valid, 10'000);
}

}  // namespace
}  // namespace bottega::gateway
