#include "gateway/request_fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/base/limits.h"
#include "core/base/reason.h"
#include "gateway/request_parser.h"

namespace bottega::gateway {
namespace {

constexpr RequestBounds kBounds{.vocab_size = 1000};

Json Body(Api api) {
  if (api == Api::kCompletion) return {{"prompt", "x"}};
  return {{"messages", {{{"role", "user"}, {"content", "x"}}}}};
}

absl::Status Parse(Api api, const Json& body) {
  return ParseRequest(api, DumpJson(body), kBounds).status();
}

// The body with `name` set, and what else it needs to be right.
Json With(Api api, std::string_view name, const Json& value) {
  Json body = Body(api);
  if (name == "top_logprobs") body["logprobs"] = true;
  if (name == "min_tokens" && value.is_number()) body["max_tokens"] = 2147483647;
  body[std::string(name)] = value;
  if (name == "best_of") body["n"] = value;
  return body;
}

absl::Status ParseWith(Api api, std::string_view name, const Json& value) {
  return Parse(api, With(api, name, value));
}

template <class F>
void ForEachField(FieldKind kind, F f) {
  for (const FieldRow& row : FieldTable()) {
    for (Api api : {Api::kChat, Api::kCompletion}) {
      if (row.kind != kind || (row.apis & static_cast<uint8_t>(api)) == 0) continue;
      SCOPED_TRACE(testing::Message() << row.name << " of api " << static_cast<int>(api));
      f(row, api);
    }
  }
}

void ExpectRefused(const absl::Status& status, std::string_view param) {
  EXPECT_EQ(ReasonOf(status), Reason::kInvalidValue) << status;
  EXPECT_EQ(ParamOf(status), param);
  EXPECT_EQ(RowOf(ReasonOf(status)).http_status, 400);
}

TEST(RequestFields, R6_IntegersAtTheirLimitsAndPastThem) {
  ForEachField(FieldKind::kInteger, [](const FieldRow& row, Api api) {
    EXPECT_TRUE(ParseWith(api, row.name, row.least).ok());
    EXPECT_TRUE(ParseWith(api, row.name, row.most).ok());
    EXPECT_TRUE(ParseWith(api, row.name, nullptr).ok());
    if (row.least > std::numeric_limits<int64_t>::min()) {
      ExpectRefused(ParseWith(api, row.name, row.least - 1), row.name);
    }
    if (row.most < std::numeric_limits<int64_t>::max()) {
      ExpectRefused(ParseWith(api, row.name, row.most + 1), row.name);
    }
    for (const Json& bad : {Json(uint64_t{1} << 63), Json(1e308), Json(-1e308), Json(1.5)}) {
      ExpectRefused(ParseWith(api, row.name, bad), row.name);
    }
    if (row.most < (int64_t{1} << 31)) {
      ExpectRefused(ParseWith(api, row.name, int64_t{1} << 31), row.name);
    }
    for (const Json& bad : {Json("5"), Json(true), Json::array({1}), Json::object()}) {
      ExpectRefused(ParseWith(api, row.name, bad), row.name);
    }
  });
}

TEST(RequestFields, R6_NumbersAtTheirLimitsAndPastThem) {
  ForEachField(FieldKind::kNumber, [](const FieldRow& row, Api api) {
    EXPECT_EQ(ParseWith(api, row.name, row.low).ok(), !row.low_open);
    EXPECT_TRUE(ParseWith(api, row.name, row.high).ok());
    EXPECT_TRUE(ParseWith(api, row.name, (row.low + row.high) / 2).ok());
    EXPECT_TRUE(ParseWith(api, row.name, nullptr).ok());
    const double below = std::nextafter(row.low, -1e300), above = std::nextafter(row.high, 1e300);
    for (const Json& bad :
         {Json(below), Json(above), Json(-11), Json(int64_t{1} << 31), Json(uint64_t{1} << 63),
          Json(1e308), Json("5"), Json(true), Json::array(), Json::object()}) {
      ExpectRefused(ParseWith(api, row.name, bad), row.name);
    }
    EXPECT_EQ(ParseWith(api, row.name, -1).ok(), row.low <= -1);
  });
}

TEST(RequestFields, BooleansAreBooleans) {
  ForEachField(FieldKind::kBoolean, [](const FieldRow& row, Api api) {
    if (row.name == "continue_final_message") return;  // needs more, see below
    EXPECT_TRUE(ParseWith(api, row.name, true).ok());
    EXPECT_TRUE(ParseWith(api, row.name, false).ok());
    EXPECT_TRUE(ParseWith(api, row.name, nullptr).ok());
    for (const Json& bad : {Json("true"), Json(1), Json(0), Json::array(), Json::object()}) {
      ExpectRefused(ParseWith(api, row.name, bad), row.name);
    }
  });
}

TEST(RequestFields, TextsHaveALength) {
  ForEachField(FieldKind::kText, [](const FieldRow& row, Api api) {
    EXPECT_TRUE(ParseWith(api, row.name, std::string(row.most, 'a')).ok());
    ExpectRefused(ParseWith(api, row.name, std::string(row.most + 1, 'a')), row.name);
    ExpectRefused(ParseWith(api, row.name, 5), row.name);
  });
}

TEST(RequestFields, WhatIsNotSupportedYetIsNamedUnlessItChangesNothing) {
  ForEachField(FieldKind::kNotYet, [](const FieldRow& row, Api api) {
    EXPECT_TRUE(ParseWith(api, row.name, nullptr).ok());
    EXPECT_TRUE(ParseWith(api, row.name, Json::parse(row.neutral)).ok());
    for (const Json& value : {Json("something"), Json(7), Json{{"a", 1}}, Json::array({1})}) {
      const absl::Status status = ParseWith(api, row.name, value);
      EXPECT_EQ(ReasonOf(status), Reason::kUnsupportedParameter) << status;
      EXPECT_EQ(ParamOf(status), row.name);
    }
  });
}

TEST(RequestFields, NoEffectTakesAnything) {
  ForEachField(FieldKind::kNoEffect, [](const FieldRow& row, Api api) {
    for (const Json& value : {Json("x"), Json(7), Json{{"a", 1}}, Json(nullptr)}) {
      EXPECT_TRUE(ParseWith(api, row.name, value).ok());
    }
  });
}

// Fields of several values: {api, body's extra fields, the param of the refusal; empty: accepted}.
struct ShapedCase {
  Api api;
  const char* fields;
  const char* param;
  Reason reason = Reason::kInvalidValue;
};

constexpr Api C = Api::kChat;
constexpr Api P = Api::kCompletion;
const ShapedCase kShaped[] = {
    {C, R"({"stop":"x"})", ""},
    {C, R"({"stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p"]})", ""},
    {C, R"({"stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"]})",
     "stop"},
    {C, R"({"stop":[]})", ""},
    {C, R"({"stop":""})", "stop"},
    {C, R"({"stop":[1]})", "stop"},
    {C, R"({"stop":5})", "stop"},
    {C, R"({"stop":{}})", "stop"},
    {C, R"({"stop_token_ids":[0,999]})", ""},
    {C, R"({"stop_token_ids":[1000]})", "stop_token_ids"},
    {C, R"({"stop_token_ids":[-1]})", "stop_token_ids"},
    {C, R"({"stop_token_ids":[9223372036854775808]})", "stop_token_ids"},
    {C, R"({"stop_token_ids":["1"]})", "stop_token_ids"},
    {C, R"({"stop_token_ids":1})", "stop_token_ids"},
    {C, R"({"logit_bias":{}})", ""},
    {C, R"({"logit_bias":{"0":-100,"999":100}})", ""},
    {P, R"({"logit_bias":{"5":0.5}})", ""},
    {C, R"({"logit_bias":{"5":100.001}})", "logit_bias"},
    {C, R"({"logit_bias":{"5":-100.001}})", "logit_bias"},
    {C, R"({"logit_bias":{"5":1e308}})", "logit_bias"},
    {C, R"({"logit_bias":{"1000":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"-1":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"9223372036854775808":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"05":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"+5":1}})", "logit_bias"},
    {C, R"({"logit_bias":{" 5":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"x":1}})", "logit_bias"},
    {C, R"({"logit_bias":{"5":"1"}})", "logit_bias"},
    {C, R"({"logit_bias":{"5":null}})", "logit_bias"},
    {C, R"({"logit_bias":[5]})", "logit_bias"},
    {C, R"({"allowed_token_ids":[0,999,0]})", ""},
    {P, R"({"allowed_token_ids":[7]})", ""},
    {C, R"({"allowed_token_ids":[]})", "allowed_token_ids"},
    {C, R"({"allowed_token_ids":[1000]})", "allowed_token_ids"},
    {C, R"({"allowed_token_ids":[-1]})", "allowed_token_ids"},
    {C, R"({"allowed_token_ids":[9223372036854775808]})", "allowed_token_ids"},
    {C, R"({"allowed_token_ids":["1"]})", "allowed_token_ids"},
    {C, R"({"allowed_token_ids":5})", "allowed_token_ids"},
    {C, R"({"bad_words":[]})", ""},
    {P, R"({"bad_words":["a"," b c"]})", ""},
    {C, R"({"bad_words":[""]})", "bad_words"},
    {C, R"({"bad_words":[" \n"]})", "bad_words"},
    {C, R"({"bad_words":[5]})", "bad_words"},
    {C, R"({"bad_words":"a"})", "bad_words"},
    {C, R"({"thinking_token_budget":0})", ""},
    {C, R"({"thinking_token_budget":-1,"thinking_budget":-1})", ""},
    {C, R"({"thinking_token_budget":2147483647})", ""},
    {C, R"({"thinking_token_budget":-2})", "thinking_token_budget"},
    {C, R"({"thinking_token_budget":2147483648})", "thinking_token_budget"},
    {C, R"({"thinking_token_budget":"5"})", "thinking_token_budget"},
    {C, R"({"thinking_budget":1.5})", "thinking_budget"},
    {C, R"({"thinking_budget":5,"reasoning_budget_tokens":5,"thinking_budget_tokens":5})", ""},
    {C, R"({"thinking_budget":5,"reasoning_budget_tokens":6})", "thinking_token_budget"},
    {C, R"({"thinking_budget_tokens":5,"thinking_token_budget":-1})", "thinking_token_budget"},
    {P, R"({"thinking_token_budget":-1})", ""},
    {P, R"({"thinking_token_budget":5})", "thinking_token_budget", Reason::kUnsupportedParameter},
    {C, R"({"stream":true,"stream_options":{"include_usage":true}})", ""},
    {C, R"({"stream":true,"stream_options":{"include_usage":"true"}})",
     "stream_options.include_usage"},
    {C, R"({"stream":true,"stream_options":[]})", "stream_options"},
    {C, R"({"stream_options":{"include_usage":true}})", "stream_options"},
    {C, R"({"stream_options":null})", ""},
    {C, R"({"response_format":{"type":"text"}})", ""},
    {C, R"({"response_format":{"type":"json_object"}})", "response_format",
     Reason::kUnsupportedParameter},
    {C, R"({"response_format":{"type":"xml"}})", "response_format.type"},
    {C, R"({"response_format":"text"})", "response_format"},
    {C, R"({"chat_template_kwargs":{"enable_turbo":true,"reasoning_lang":"ita"}})", ""},
    {C, R"({"chat_template_kwargs":{"messages":1}})", "chat_template_kwargs.messages"},
    {C, R"({"chat_template_kwargs":{"tools":null}})", "chat_template_kwargs.tools"},
    {C, R"({"chat_template_kwargs":{"chat_template":"x"}})", "chat_template_kwargs.chat_template"},
    {C, R"({"chat_template_kwargs":{"add_generation_prompt":true}})",
     "chat_template_kwargs.add_generation_prompt"},
    {C, R"({"chat_template_kwargs":{"a":[1]}})", "chat_template_kwargs.a"},
    {C, R"({"chat_template_kwargs":[]})", "chat_template_kwargs"},
    {C, R"({"reasoning_effort":"low"})", ""},
    {C, R"({"reasoning_effort":"much"})", "reasoning_effort"},
    {C, R"({"reasoning_effort":1})", "reasoning_effort"},
    {C, R"({"request_id":"a-B_3.c"})", ""},
    {C, R"({"request_id":"a b"})", "request_id"},
    {C, R"({"request_id":""})", "request_id"},
    {C, R"({"top_logprobs":1})", "top_logprobs"},
    {C, R"({"top_logprobs":0})", ""},
    {C, R"({"continue_final_message":true})", "continue_final_message"},
    {C, R"({"continue_final_message":true,"add_generation_prompt":false})",
     "continue_final_message"},  // the last message is the user's
    {C, R"({"max_tokens":3,"min_tokens":4})", "min_tokens"},
    {C, R"({"tools":[]})", "tools"},
    {C, R"({"tools":{}})", "tools"},
    {C, R"({"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]})", ""},
    {C, R"({"tools":[{"type":"function","function":{"name":""}}]})", "tools[0].function.name"},
    {C, R"({"tools":[{"type":"function","function":{}}]})", "tools[0].function.name"},
    {C, R"({"tools":[{"type":"function"}]})", "tools[0].function"},
    {C, R"({"tools":[1]})", "tools[0]"},
    {C, R"({"tool_choice":"auto"})", "tool_choice"},
    {C, R"({"tool_choice":"auto","tools":[{"type":"function","function":{"name":"f"}}]})", ""},
    {C, R"({"tool_choice":"none","tools":[{"type":"function","function":{"name":"f"}}]})", ""},
    {C, R"({"tool_choice":"maybe","tools":[{"type":"function","function":{"name":"f"}}]})",
     "tool_choice"},
    {C, R"({"tool_choice":"required","tools":[{"type":"function","function":{"name":"f"}}]})",
     "tool_choice", Reason::kUnsupportedParameter},
    {C, R"({"messages":[]})", "messages"},
    {C, R"({"messages":null})", "messages"},
    {C, R"({"messages":"hi"})", "messages"},
    {C, R"({"messages":["hi"]})", "messages[0]"},
    {C, R"({"messages":[{"content":"x"}]})", "messages[0].role"},
    {C, R"({"messages":[{"role":"robot","content":"x"}]})", "messages[0].role"},
    {C, R"({"messages":[{"role":5,"content":"x"}]})", "messages[0].role"},
    {C, R"({"messages":[{"role":"user"}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"user","content":""}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"user","content":[]}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"user","content":7}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]})", ""},
    {C, R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})",
     "messages[0].content[0].text"},
    {C, R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
     "messages[0].content[0].type", Reason::kUnsupportedParameter},
    {C, R"({"messages":[{"role":"assistant","content":null}]})", "messages[0].content"},
    {C, R"({"messages":[{"role":"assistant","content":null,"reasoning":"r"}]})", ""},
    {C, R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].tool_call_id"},
    {C, R"({"messages":[{"role":"tool","content":"x","tool_call_id":"1"}]})",
     "messages[0].tool_call_id"},
    {C, R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1",
         "type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","content":"x","tool_call_id":"1"}]})",
     ""},
    {C, R"({"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]})",
     "messages[0].tool_calls[0].function"},
    {P, R"({"prompt":null})", "prompt"},
    {P, R"({"prompt":[]})", "prompt"},
    {P, R"({"prompt":5})", "prompt"},
    {P, R"({"prompt":{}})", "prompt"},
    {P, R"({"prompt":[0,999]})", ""},
    {P, R"({"prompt":[1000]})", "prompt"},
    {P, R"({"prompt":[-1]})", "prompt"},
    {P, R"({"prompt":[1,9223372036854775808]})", "prompt"},
    {P, R"({"prompt":[1,1.5]})", "prompt"},
    {P, R"({"prompt":[1,"a"]})", "prompt"},
    {P, R"({"prompt":["a",[1,2]]})", ""},
    {P, R"({"prompt":["a",[]]})", "prompt"},
    {P, R"({"prompt":["a",[1000]]})", "prompt"},
    {P, R"({"best_of":2})", "best_of"},
    {P, R"({"best_of":2,"n":2})", ""},
    {P, R"({"echo":true,"logprobs":1})", "echo", Reason::kUnsupportedParameter},
    {P, R"({"suffix":"x"})", "suffix", Reason::kUnsupportedParameter},
};

TEST(RequestFields, R8_R10_ShapedFields) {
  for (const ShapedCase& c : kShaped) {
    SCOPED_TRACE(c.fields);
    Json body = Body(c.api);
    const Json extra = Json::parse(c.fields);
    for (const auto& [name, value] : extra.items()) body[name] = value;
    const absl::Status status = Parse(c.api, body);
    if (std::string_view(c.param).empty()) {
      EXPECT_TRUE(status.ok()) << status;
    } else {
      EXPECT_EQ(ParamOf(status), c.param) << status;
      EXPECT_EQ(ReasonOf(status), c.reason) << status;
    }
  }
}

TEST(RequestFields, ListsPastTheirLengths) {
  auto message = [](const Json& content) { return Json{{"role", "user"}, {"content", content}}; };
  Json messages = Json::array(), parts = Json::array(), tools = Json::array();
  for (size_t i = 0; i < limits::kMessagesMax; ++i) messages.push_back(message("x"));
  for (size_t i = 0; i < limits::kPartsPerMessageMax; ++i) {
    parts.push_back({{"type", "text"}, {"text", "x"}});
  }
  for (size_t i = 0; i < limits::kToolsMax; ++i) {
    tools.push_back({{"type", "function"}, {"function", {{"name", "f"}}}});
  }
  EXPECT_TRUE(ParseWith(C, "messages", messages).ok());
  EXPECT_TRUE(ParseWith(C, "messages", Json::array({message(parts)})).ok());
  EXPECT_TRUE(ParseWith(C, "tools", tools).ok());
  messages.push_back(message("x"));
  parts.push_back(parts[0]);
  tools.push_back(tools[0]);
  EXPECT_EQ(ParamOf(ParseWith(C, "messages", messages)), "messages");
  EXPECT_EQ(ParamOf(ParseWith(C, "messages", Json::array({message(parts)}))),
            "messages[0].content");
  EXPECT_EQ(ParamOf(ParseWith(C, "tools", tools)), "tools");

  EXPECT_TRUE(ParseWith(C, "stop", std::string(limits::kStopStringBytesMax, 'a')).ok());
  EXPECT_EQ(ParamOf(ParseWith(C, "stop", std::string(limits::kStopStringBytesMax + 1, 'a'))),
            "stop");
  Json ids = Json::array();
  for (size_t i = 0; i < limits::kStopIdsMax; ++i) ids.push_back(1);
  EXPECT_TRUE(ParseWith(C, "stop_token_ids", ids).ok());
  ids.push_back(1);
  EXPECT_EQ(ParamOf(ParseWith(C, "stop_token_ids", ids)), "stop_token_ids");
  Json bias = Json::object(), words = Json::array();
  for (size_t i = 0; i < limits::kLogitBiasMax; ++i) bias[std::to_string(i)] = 1;
  for (size_t i = 0; i < limits::kBadWordsMax; ++i) words.push_back("a");
  const RequestBounds more_ids{.vocab_size = 2000};
  EXPECT_TRUE(ParseRequest(C, DumpJson(With(C, "logit_bias", bias)), more_ids).ok());
  bias[std::to_string(limits::kLogitBiasMax)] = 1;
  EXPECT_EQ(ParamOf(ParseRequest(C, DumpJson(With(C, "logit_bias", bias)), more_ids).status()),
            "logit_bias");
  EXPECT_TRUE(ParseWith(C, "bad_words", words).ok());
  words.push_back("a");
  EXPECT_EQ(ParamOf(ParseWith(C, "bad_words", words)), "bad_words");
  const std::string word(limits::kBadWordBytesMax, 'a');
  EXPECT_TRUE(ParseWith(C, "bad_words", Json::array({word})).ok());
  EXPECT_EQ(ParamOf(ParseWith(C, "bad_words", Json::array({word + "a"}))), "bad_words");
  const std::string name(limits::kToolNameCharsMax + 1, 'f');
  const Json tool = {{"type", "function"}, {"function", {{"name", name}}}};
  EXPECT_EQ(ParamOf(ParseWith(C, "tools", Json::array({tool}))), "tools[0].function.name");
  Json prompts = Json::array();
  for (size_t i = 0; i < 9; ++i) prompts.push_back("x");
  Json body = {{"prompt", prompts}, {"n", 16}};
  EXPECT_EQ(ParamOf(Parse(P, body)), "n");
}

TEST(RequestFields, UnknownFieldsAreIgnoredAndCounted) {
  Json body = Body(C);
  body["made_up"] = 1;
  body["stream"] = true;
  body["stream_options"] = {{"other", 1}};
  absl::StatusOr<GenerateRequest> request = ParseRequest(C, DumpJson(body), kBounds);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->ignored_fields, (std::vector<std::string>{"made_up", "stream_options.other"}));
}

TEST(RequestFields, ReasoningModesBecomeTemplateArguments) {
  auto kwargs = [](const char* fields) {
    Json body = Body(C);
    const Json extra = Json::parse(fields);
    for (const auto& [name, value] : extra.items()) body[name] = value;
    return DumpJson(ParseRequest(C, DumpJson(body), kBounds)->template_kwargs);
  };
  EXPECT_EQ(kwargs("{}"), "{}");
  EXPECT_EQ(kwargs(R"({"enable_thinking":false})"), R"({"enable_thinking":false})");
  EXPECT_EQ(kwargs(R"({"reasoning_effort":"none"})"), R"({"enable_thinking":false})");
  EXPECT_EQ(kwargs(R"({"reasoning_effort":"minimal"})"), R"({"enable_turbo":true})");
  EXPECT_EQ(kwargs(R"({"reasoning_effort":"high"})"), "{}");
  EXPECT_EQ(kwargs(R"({"reasoning_effort":"low","chat_template_kwargs":{"enable_turbo":false}})"),
            R"({"enable_turbo":false})");
}

TEST(RequestFields, MessagesTakeTheFormOfTemplates) {
  const Json messages = Json::parse(R"([
      {"role":"user","content":"q"},
      {"role":"assistant","reasoning_content":"r","content":null,"refusal":null,
       "tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"b\": 1, \"a\": 2}"}}]},
      {"role":"tool","tool_call_id":"1","content":[{"type":"text","text":"t"}]}])");
  absl::StatusOr<GenerateRequest> request =
      ParseRequest(C, DumpJson({{"messages", messages}}), kBounds);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(
      DumpJson(request->messages),
      R"([{"role":"user","content":"q"},)"
      R"({"role":"assistant","reasoning":"r","reasoning_content":"r",)"
      R"("tool_calls":[{"type":"function","id":"1","function":{"name":"f","arguments":{"b":1,"a":2}}}],)"
      R"("content":""},)"
      R"({"role":"tool","content":"t","tool_call_id":"1"}])");
}

TEST(RequestFields, MaxCompletionTokensWins) {
  Json body = Body(C);
  body["max_tokens"] = 3;
  body["max_completion_tokens"] = 5;
  EXPECT_EQ(ParseRequest(C, DumpJson(body), kBounds)->max_tokens, 5);
}

TEST(RequestFields, TheBodyMustBeAnObject) {
  for (const char* body : {"[]", "5", "\"x\"", "null"}) {
    EXPECT_EQ(ReasonOf(ParseRequest(C, body, kBounds).status()), Reason::kInvalidValue);
  }
}

}  // namespace
}  // namespace bottega::gateway
