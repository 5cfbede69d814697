// Tool calls over HTTP: whole and streamed, and the conversation that goes on with their results.
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

const Json kTools = Json::parse(R"([
    {"type":"function","function":{"name":"get_weather","parameters":{"type":"object"}}},
    {"type":"function","function":{"name":"disk.usage"}}])");

constexpr char kThought[] = "<think>\nThey want <tool_call>, è.\n</think>\n\n";
constexpr char kWeather[] =
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Forlì\"}}\n</tool_call>";
constexpr char kDisk[] =
    "<tool_call>{\"arguments\":{\"path\":\"/\"},\"name\":\"disk_usage\"}</tool_call>";

// A client's fold of a stream, in the form of a whole answer's choice.
Json FoldChoice(const std::vector<std::string>& events, std::vector<std::string>* order = nullptr) {
  Json content, reasoning, calls = Json::array(), choice, logprobs = Json::array(),
                           ids = Json::array();
  const auto add = [](Json& to, const Json& text) {
    to = (to.is_null() ? "" : to.get<std::string>()) + text.get<std::string>();
  };
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json chunk = Json::parse(event)["choices"][0];
    const Json& delta = chunk["delta"];
    for (const auto& [name, value] : delta.items()) {
      EXPECT_FALSE(value.is_null()) << event;
      const std::string kind = delta.contains("role") ? "role" : name;
      if (kind == "reasoning_content") continue;  // comes with `reasoning`
      if (order != nullptr && (order->empty() || order->back() != kind)) order->push_back(kind);
    }
    if (delta.contains("content") && delta["content"] != "") add(content, delta["content"]);
    if (delta.contains("reasoning")) add(reasoning, delta["reasoning"]);
    for (const Json& part : delta.value("tool_calls", Json::array())) {
      Json call = part;
      call.erase("index");
      const Json function = part["function"];
      if (part.contains("id")) {
        EXPECT_EQ(part["index"], calls.size());
        EXPECT_EQ(function.size(), 1u) << event;
        call["function"]["arguments"] = "";
        calls.push_back(call);
      } else {
        EXPECT_EQ(part["index"], calls.size() - 1);
        add(calls.back()["function"]["arguments"], function["arguments"]);
      }
    }
    if (!chunk["logprobs"].is_null()) {
      for (const Json& entry : chunk["logprobs"]["content"]) logprobs.push_back(entry);
    }
    for (const Json& id : chunk.value("token_ids", Json::array())) ids.push_back(id);
    if (!chunk["finish_reason"].is_null()) {
      EXPECT_TRUE(delta.empty());
      choice = {{"finish_reason", chunk["finish_reason"]}, {"stop_reason", chunk["stop_reason"]}};
    }
  }
  Json message = {{"role", "assistant"},
                  {"content", content},
                  {"reasoning", reasoning},
                  {"reasoning_content", reasoning}};
  if (!calls.empty()) message["tool_calls"] = calls;
  return {{"index", 0},
          {"message", message},
          {"logprobs", {{"content", logprobs}}},
          {"finish_reason", choice["finish_reason"]},
          {"stop_reason", choice["stop_reason"]},
          {"token_ids", ids}};
}

class ToolCallsTest : public testing::Test {
 protected:
  // The worker says `text_` from here on.
  void Says(const std::string& text) {
    h.OnLoop([&] { text_ = *FakeText().Encode(text, {}); });
  }
  void Start() {
    h.AddWorker([this](const internal::v1::Submit&, uint32_t index) {
      if (index >= text_.size()) return FakeAttentionWorker::Next{FakeText::kEnd, true};
      return FakeAttentionWorker::Next{text_[index], false};
    });
    h.Start();
  }
  Json Ask(Json fields = Json::object()) {
    fields["tools"] = kTools;
    const HttpClient::Response response = h.Chat(fields, "x-request-id: r\r\n");
    EXPECT_EQ(response.status, 200) << response.body;
    return response.json()["choices"][0];
  }

  GatewayHarness h;
  std::vector<int32_t> text_;
};

TEST_F(ToolCallsTest, FramesOfAStream) {
  Start();
  Says("<think>a</think>\n\nb<tool_call>{\"name\":\"f\"}");
  const HttpClient::Response response =
      h.Chat({{"tools", kTools}, {"stream", true}}, "x-request-id: r\r\n");
  std::vector<std::string> deltas;
  for (const std::string& event : response.Events()) {
    if (event != "[DONE]") deltas.push_back(Json::parse(event)["choices"][0]["delta"].dump());
  }
  const std::string id = Json::parse(deltas.at(3))["tool_calls"][0]["id"];
  EXPECT_TRUE(id.starts_with("call_") && id.ends_with("_0_0")) << id;
  EXPECT_EQ(deltas, (std::vector<std::string>{
                        R"({"role":"assistant","content":""})",
                        R"({"reasoning":"a","reasoning_content":"a"})", R"({"content":"b"})",
                        R"({"tool_calls":[{"index":0,"id":")" + id +
                            R"(","type":"function","function":{"name":"f"}}]})",
                        R"({"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]})", "{}"}));
}

TEST_F(ToolCallsTest, TheStreamedAnswerFoldsToTheWholeOne) {
  Start();
  struct Case {
    std::string text;
    Json content;
    std::vector<std::pair<std::string, std::string>> calls;  // name, arguments
    const char* finish;
  };
  const std::pair<std::string, std::string> weather = {"get_weather", "{\"city\": \"Forlì\"}"};
  const Case cases[] = {
      {kWeather, nullptr, {weather}, "tool_calls"},
      {std::string("Let me look.\n") + kWeather + "\n" + kDisk + " done",
       "Let me look.",
       {weather, {"disk.usage", "{\"path\":\"/\"}"}},
       "tool_calls"},
      {"plain\n", "plain\n", {}, "stop"},
      {"", "", {}, "stop"},
      {"a <tool_call>{oops}</tool_call>", "a <tool_call>{oops}</tool_call>", {}, "stop"},
      {"<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": True}}</tool_call>",
       nullptr,
       {{"f", "{\"a\": True}"}},
       "tool_calls"},
      {"<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}",
       nullptr,
       {{"f", "{\"a\":1}"}},
       "tool_calls"},
      {"<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":",
       nullptr,
       {{"f", "{\"a\":"}},
       "tool_calls"},
      {R"(<tool_call>{"name":"\u0066","arguments":{"a":"\"}</tool_call>","b":{"c":"{"}}}</tool_call>)",
       nullptr,
       {{"f", R"({"a":"\"}</tool_call>","b":{"c":"{"}})"}},
       "tool_calls"},
  };
  for (const Case& c : cases) {
    for (const char* thought : {"", kThought}) {
      SCOPED_TRACE(thought + c.text);
      Says(thought + c.text);
      Json fields = {{"logprobs", true}, {"top_logprobs", 1}, {"return_token_ids", true}};
      const Json whole = Ask(fields);
      const Json& message = whole["message"];
      EXPECT_EQ(message["content"], c.content);
      EXPECT_EQ(message["reasoning"].is_null(), *thought == '\0');
      EXPECT_EQ(whole["finish_reason"], c.finish);
      ASSERT_EQ(message.contains("tool_calls"), !c.calls.empty()) << message;
      for (size_t i = 0; i < c.calls.size(); ++i) {
        const Json& call = message["tool_calls"][i];
        EXPECT_EQ(call["type"], "function");
        EXPECT_EQ(call["function"]["name"], c.calls[i].first);
        EXPECT_EQ(call["function"]["arguments"], c.calls[i].second);
      }
      EXPECT_EQ(whole["token_ids"].size(), text_.size() + 1);
      EXPECT_EQ(whole["logprobs"]["content"].size(), text_.size() + 1);

      fields.update({{"stream", true}, {"tools", kTools}});
      std::vector<std::string> order;
      Json folded = FoldChoice(h.Chat(fields, "x-request-id: r\r\n").Events(), &order);
      // A stream tells the empty answer from none by its end only.
      if (c.text.empty()) folded["message"]["content"] = "";
      EXPECT_EQ(folded, whole);
      std::vector<std::string> expected = {"role"};
      if (*thought != '\0') expected.push_back("reasoning");
      if (c.content.is_string() && c.content != "") expected.push_back("content");
      if (!c.calls.empty()) expected.push_back("tool_calls");
      EXPECT_EQ(order, expected);
    }
  }
  // Whole and streamed, with a thought and without: of each case with broken JSON.
  EXPECT_NE(h.Metrics().find("bottega_gateway_tool_parse_errors_total 12"), std::string::npos)
      << h.Metrics();
}

TEST_F(ToolCallsTest, WithoutToolsItIsText) {
  Start();
  Says(kWeather);
  for (const Json& fields : {Json::object(), Json{{"tools", kTools}, {"tool_choice", "none"}}}) {
    const Json choice = h.Chat(fields).json()["choices"][0];
    EXPECT_EQ(choice["message"]["content"], kWeather);
    EXPECT_FALSE(choice["message"].contains("tool_calls"));
    EXPECT_EQ(choice["finish_reason"], "stop");
  }
  h.OnLoop([&] {
    for (const internal::v1::Submit& submit : h.workers[0]->submits) {
      const auto& ids = submit.prompt_ids();
      const std::string prompt =
          *FakeText().Decode(std::vector<int32_t>(ids.begin(), ids.end()), false);
      EXPECT_EQ(prompt.find("tools:"), std::string::npos) << prompt;
    }
  });
}

TEST_F(ToolCallsTest, ACallCutByTheLimitIsALength) {
  Start();
  Says(kWeather);
  const Json choice = Ask({{"max_tokens", 42}});
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"c");
  EXPECT_NE(h.Metrics().find("bottega_gateway_tool_parse_errors_total 0"), std::string::npos);
}

TEST_F(ToolCallsTest, OneCallAtMostEndsTheWorkWithIt) {
  Start();
  Says(std::string(kWeather) + kDisk + "and a long way to go");
  for (const bool stream : {false, true}) {
    Json fields = {{"parallel_tool_calls", false}, {"tools", kTools}, {"stream", stream}};
    const HttpClient::Response response = h.Chat(fields);
    const Json choice = stream ? FoldChoice(response.Events()) : response.json()["choices"][0];
    EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u);
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    EXPECT_TRUE(choice["stop_reason"].is_null());
  }
  h.WaitFor([&] { return h.workers[0]->cancels.size() == 2 && h.workers[0]->live() == 0; });
}

TEST_F(ToolCallsTest, ChoicesHaveTheirOwnIds) {
  Start();
  Says(std::string(kWeather) + kDisk);
  std::set<std::string> ids;
  for (const char* question : {"a", "b"}) {  // two turns of a client with one request id
    const Json answer = h.Chat({{"tools", kTools},
                                {"n", 2},
                                {"messages", {{{"role", "user"}, {"content", question}}}}},
                               "x-request-id: r\r\n")
                            .json();
    for (const Json& choice : answer["choices"]) {
      for (const Json& call : choice["message"]["tool_calls"]) ids.insert(call["id"]);
    }
  }
  EXPECT_EQ(ids.size(), 8u);
}

// The answer's message goes back as it is, with the result: the next prompt has both.
TEST_F(ToolCallsTest, ACallAndItsResultAreInTheNextPrompt) {
  Start();
  Says(std::string(kThought) + "I look." + kWeather);
  Json messages = {{{"role", "user"}, {"content", "Che tempo fa a Forlì?"}}};
  const Json message = Ask({{"messages", messages}})["message"];
  messages.push_back(message);
  messages.push_back({{"role", "tool"},
                      {"tool_call_id", message["tool_calls"][0]["id"]},
                      {"content", "sole </tool_call>"}});
  Says("Sole.");
  const Json last = Ask({{"messages", messages}});
  EXPECT_EQ(last["message"]["content"], "Sole.");
  EXPECT_EQ(last["finish_reason"], "stop");
  h.OnLoop([&] {
    const auto& ids = h.workers[0]->submits.at(1).prompt_ids();
    const std::string prompt =
        *FakeText().Decode(std::vector<int32_t>(ids.begin(), ids.end()), false);
    EXPECT_TRUE(prompt.ends_with(
        "<|im_start|>assistant\nI look.<tool_call>{\"name\":\"get_weather\",\"arguments\":"
        "{\"city\":\"Forlì\"}}</tool_call><|im_end|>\n"
        "<|im_start|>tool\nsole </tool_call><|im_end|>\n<|im_start|>assistant\n"))
        << prompt;
    EXPECT_EQ(std::ranges::count(ids, static_cast<int32_t>(FakeText::kToolCall)), 1);
    EXPECT_EQ(std::ranges::count(ids, static_cast<int32_t>(FakeText::kEndToolCall)), 1);
  });

  messages.back()["tool_call_id"] = "call_of_nobody";
  const HttpClient::Response refused = h.Chat({{"messages", messages}, {"tools", kTools}});
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["error"]["param"], "messages[2].tool_call_id");
}

}  // namespace
}  // namespace bottega::gateway
