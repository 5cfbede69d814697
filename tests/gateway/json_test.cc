#include "gateway/json.h"

#include <gtest/gtest.h>

#include "core/base/limits.h"
#include "core/base/reason.h"

namespace bottega::gateway {
namespace {

std::string Nested(size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(RequestJson, KeepsOrderAndTypes) {
  absl::StatusOr<Json> json = ParseRequestJson(R"({"b":1,"a":[true,null,"x",2.5,-3]})");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ(DumpJson(*json), R"({"b":1,"a":[true,null,"x",2.5,-3]})");
}

TEST(RequestJson, R1_RefusesWhatIsNoCleanText) {
  const std::string cases[] = {
      "",
      "{",
      "{]",
      "{\"a\":1}x",
      "{\"a\":01}",
      "{\"a\":NaN}",
      "{\"a\":Infinity}",
      "{\"a\":1e999}",
      "{'a':1}",
      "{\"a\":1,}",
      "{\"a\":1,\"a\":2}",
      "{\"x\":{\"a\":1,\"b\":2,\"a\":1}}",
      "{\"a\":\"\xff\"}",
      "{\"a\":\"\xc3\"}",
      "{\"a\":\"\xed\xa0\x80\"}",
      "{\"a\":\"\\ud800\"}",
      "{\"a\":\"\\udc00\"}",
      "{\"a\":\"\\ud800\\u0041\"}",
      "{\"a\":\"\\u0000\"}",
      "{\"\\u0000\":1}",
      std::string("{\"a\":\"\0\"}", 9),
      "{\"a\":\"tab\there\"}",
      "\xEF\xBB\xBF",
      Nested(limits::kJsonDepthMax + 1),
      Nested(100'000),
  };
  for (const std::string& text : cases) {
    absl::StatusOr<Json> json = ParseRequestJson(text);
    EXPECT_FALSE(json.ok()) << text.substr(0, 40);
    EXPECT_EQ(ReasonOf(json.status()), Reason::kInvalidValue);
  }
}

TEST(RequestJson, DepthAtTheLimitPasses) {
  EXPECT_TRUE(ParseRequestJson(Nested(limits::kJsonDepthMax)).ok());
}

TEST(RequestJson, TheSameKeyInTwoObjectsPasses) {
  EXPECT_TRUE(ParseRequestJson(R"([{"a":1},{"a":{"a":2}}])").ok());
}

TEST(RequestJson, ValuesAreCounted) {
  std::string text = "[";
  for (size_t i = 0; i < limits::kJsonValuesMax; ++i) text += "1,";
  text.back() = ']';
  EXPECT_FALSE(ParseRequestJson(text).ok());                 // and the array itself
  EXPECT_TRUE(ParseRequestJson("[" + text.substr(3)).ok());  // one less
}

// Insertion into an ordered object is linear elsewhere: this would take minutes.
TEST(RequestJson, ManyKeysAreNotQuadratic) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += "\"k" + std::to_string(i) + "\":1,";
  text.back() = '}';
  EXPECT_TRUE(ParseRequestJson(text).ok());
}

TEST(RequestJson, DumpReplacesWhatIsNotUtf8) {
  EXPECT_EQ(DumpJson(Json("a\xff")), "\"a\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace bottega::gateway
