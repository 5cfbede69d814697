#include <gtest/gtest.h>

#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

constexpr char kThought[] = "<think>\nbecause è so\n</think>\n\nit is è\nso";

// What a client makes of a streamed chat answer.
struct Fold {
  std::string reasoning, content, finish;
  Json logprobs = Json::array(), token_ids = Json::array(), usage, stop_reason, prompt_ids;
  std::vector<std::string> order;  // kinds of chunks, repeats left out
};

Fold FoldChat(const std::vector<std::string>& events) {
  Fold fold;
  auto note = [&fold](const std::string& kind) {
    if (fold.order.empty() || fold.order.back() != kind) fold.order.push_back(kind);
  };
  for (const std::string& event : events) {
    if (event == "[DONE]") {
      note("done");
      continue;
    }
    const Json chunk = Json::parse(event);
    if (chunk.contains("prompt_token_ids")) fold.prompt_ids = chunk["prompt_token_ids"];
    if (chunk["choices"].empty()) {
      note("usage");
      fold.usage = chunk["usage"];
      continue;
    }
    const Json& choice = chunk["choices"][0];
    const Json& delta = choice["delta"];
    for (const auto& [name, value] : delta.items()) EXPECT_FALSE(value.is_null()) << event;
    if (delta.contains("role")) note("role");
    if (delta.contains("reasoning")) {
      note("reasoning");
      EXPECT_EQ(delta["reasoning"], delta["reasoning_content"]);
      fold.reasoning += delta["reasoning"].get<std::string>();
    }
    if (delta.contains("content") && !delta.contains("role")) {
      note("content");
      fold.content += delta["content"].get<std::string>();
    }
    if (!choice["logprobs"].is_null()) {
      for (const Json& entry : choice["logprobs"]["content"]) fold.logprobs.push_back(entry);
    }
    if (choice.contains("token_ids")) {
      for (const Json& id : choice["token_ids"]) fold.token_ids.push_back(id);
    }
    if (!choice["finish_reason"].is_null()) {
      note("finish");
      EXPECT_TRUE(delta.empty());
      fold.finish = choice["finish_reason"];
      fold.stop_reason = choice["stop_reason"];
    }
  }
  return fold;
}

class EndToEndTest : public testing::Test {
 protected:
  GatewayHarness h;
};

TEST_F(EndToEndTest, AChatIsAnswered) {
  h.AddWorker(Saying(kThought));
  h.Start();
  HttpClient::Response response = h.Chat({{"seed", 7}}, "x-request-id: abc-1\r\n");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(response.Header("x-request-id"), "abc-1");
  EXPECT_EQ(response.Header("Content-Type"), "application/json");
  const Json answer = response.json();
  EXPECT_EQ(answer["id"], "chatcmpl-abc-1");
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "toy");
  EXPECT_EQ(answer["system_fingerprint"], "bottega-0123456789abcdef-1-bf16-bf16");
  const Json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "it is è\nso");
  EXPECT_EQ(choice["message"]["reasoning"], "because è so");
  EXPECT_EQ(choice["message"]["reasoning_content"], "because è so");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["stop_reason"].is_null());
  EXPECT_TRUE(choice["logprobs"].is_null());
  const size_t tokens = FakeText().Encode(kThought, {})->size() + 1;
  const Json& usage = answer["usage"];
  EXPECT_EQ(usage["completion_tokens"], tokens);
  EXPECT_EQ(usage["completion_tokens_details"]["reasoning_tokens"], 17);
  EXPECT_EQ(usage["total_tokens"], usage["prompt_tokens"].get<size_t>() + tokens);

  h.OnLoop([&] {
    const internal::v1::Submit& submit = h.workers[0]->submits.at(0);
    EXPECT_EQ(submit.sampling().seed(), 7);
    EXPECT_EQ(submit.top_logprobs(), -1);
    EXPECT_EQ(submit.owner_epoch(), 1u);
    EXPECT_EQ(submit.prompt_ids_size(), usage["prompt_tokens"].get<int>());
    EXPECT_EQ(submit.max_tokens() + submit.prompt_ids_size(), 4096u);
  });
}

TEST_F(EndToEndTest, TheStreamedAnswerFoldsToTheWholeOne) {
  h.AddWorker(Saying(kThought));
  h.Start();
  Json fields = {{"logprobs", true}, {"top_logprobs", 2}, {"return_token_ids", true}};
  const Json whole = h.Chat(fields).json();
  fields["stream"] = true;
  fields["stream_options"] = {{"include_usage", true}};
  HttpClient::Response response = h.Chat(fields);
  EXPECT_EQ(response.Header("Content-Type"), "text/event-stream");
  EXPECT_EQ(response.Header("Cache-Control"), "no-cache");
  EXPECT_EQ(response.Header("X-Accel-Buffering"), "no");
  const Fold fold = FoldChat(response.Events());
  const Json& choice = whole["choices"][0];
  EXPECT_EQ(fold.content, choice["message"]["content"]);
  EXPECT_EQ(fold.reasoning, choice["message"]["reasoning"]);
  EXPECT_EQ(fold.finish, choice["finish_reason"]);
  EXPECT_EQ(fold.stop_reason, choice["stop_reason"]);
  EXPECT_EQ(fold.logprobs, choice["logprobs"]["content"]);
  EXPECT_EQ(fold.token_ids, choice["token_ids"]);
  EXPECT_EQ(fold.prompt_ids, whole["prompt_token_ids"]);
  EXPECT_EQ(fold.usage, whole["usage"]);
  EXPECT_EQ(fold.logprobs.size(), whole["usage"]["completion_tokens"].get<size_t>());
  // The first token has no text of its own, but its log-probability leaves at once.
  EXPECT_EQ(fold.order.front(), "role");
  EXPECT_EQ(fold.order[fold.order.size() - 3], "finish");
  EXPECT_EQ(fold.order[fold.order.size() - 2], "usage");
  EXPECT_EQ(fold.order.back(), "done");
}

TEST_F(EndToEndTest, FramesOfAStream) {
  FakeText text;
  h.AddWorker(Saying(std::vector<int32_t>{FakeText::kThink, text.Word("Hello"), FakeText::kEndThink,
                                          text.Word("answer")}));
  h.Start();
  HttpClient::Response response = h.Chat(
      {{"stream", true}, {"stream_options", {{"include_usage", true}}}}, "x-request-id: r\r\n");
  const std::vector<std::string> events = response.Events();
  ASSERT_EQ(events.size(), 6u) << response.body;
  const Json first = Json::parse(events[0]);
  const std::string head =
      "{\"id\":\"chatcmpl-r\",\"object\":\"chat.completion.chunk\",\"created\":" +
      first["created"].dump() +
      ",\"model\":\"toy\",\"system_fingerprint\":"
      "\"bottega-0123456789abcdef-1-bf16-bf16\",\"choices\":[";
  auto chunk = [&head](const std::string& delta, const std::string& end) {
    return head + "{\"index\":0,\"delta\":" + delta +
           ",\"logprobs\":null,\"finish_reason\":" + end + "}],\"usage\":null}";
  };
  EXPECT_EQ(events[0], chunk(R"({"role":"assistant","content":""})", "null"));
  EXPECT_EQ(events[1], chunk(R"({"reasoning":"Hello","reasoning_content":"Hello"})", "null"));
  EXPECT_EQ(events[2], chunk(R"({"content":"answer"})", "null"));
  EXPECT_EQ(events[3], chunk("{}", "\"stop\",\"stop_reason\":null"));
  EXPECT_TRUE(Json::parse(events[4])["choices"].empty());
  EXPECT_EQ(events[5], "[DONE]");
  EXPECT_TRUE(response.complete);
}

TEST_F(EndToEndTest, ReasoningCanBeHidden) {
  h.AddWorker(Saying(kThought));
  h.Start();
  const Json message = h.Chat({{"include_reasoning", false}}).json()["choices"][0]["message"];
  EXPECT_EQ(message["content"], "it is è\nso");
  EXPECT_TRUE(message["reasoning"].is_null());
  const Fold fold = FoldChat(h.Chat({{"include_reasoning", false}, {"stream", true}}).Events());
  EXPECT_EQ(fold.order, (std::vector<std::string>{"role", "content", "finish", "done"}));
}

TEST_F(EndToEndTest, CutReasoningHasNoContent) {
  h.AddWorker(Saying(kThought));
  h.Start();
  const Json choice = h.Chat({{"max_tokens", 5}}).json()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_TRUE(choice["message"]["content"].is_null());
  EXPECT_EQ(choice["message"]["reasoning"], "bec");
}

TEST_F(EndToEndTest, TheBudgetRecipeGetsReasoningAsContent) {
  h.AddWorker(Saying(kThought));
  h.Start();
  const Json choice = h.Chat({{"stop", "</think>"}}).json()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "<think>\nbecause è so\n");
  EXPECT_EQ(choice["stop_reason"], "</think>");
}

TEST_F(EndToEndTest, ThinkingOffIsAllContent) {
  h.AddWorker(Saying("plain"));
  h.Start();
  const Json choice =
      h.Chat({{"chat_template_kwargs", {{"enable_thinking", false}}}}).json()["choices"][0];
  EXPECT_EQ(choice["message"]["content"], "plain");
  EXPECT_TRUE(choice["message"]["reasoning"].is_null());
}

TEST_F(EndToEndTest, StopStringsCancelAtTheWorker) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("before STOP after and much more"));
  h.Start();
  const Json answer = h.Chat({{"stop", {"nothing", "STOP"}}}).json();
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "before ");
  EXPECT_EQ(answer["choices"][0]["stop_reason"], "STOP");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 11);  // overshoot is not billed
  h.WaitFor([&] { return worker.cancels.size() == 1 && worker.live() == 0; });
}

TEST_F(EndToEndTest, ManyChoices) {
  FakeText text;
  h.AddWorker([](const internal::v1::Submit& submit, uint32_t index) {
    if (index == 3) return FakeAttentionWorker::Next{FakeText::kEnd, true};
    return FakeAttentionWorker::Next{static_cast<int32_t>('a' + submit.sampling().choice()), false};
  });
  h.Start();
  const Json answer = h.Chat({{"n", 3}, {"seed", 1}}).json();
  ASSERT_EQ(answer["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["message"]["content"],
              std::string(3, static_cast<char>('a' + i)));
  }
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
  const std::vector<std::string> events = h.Chat({{"n", 3}, {"stream", true}}).Events();
  std::map<int, std::string> folded;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    const Json choice = Json::parse(event)["choices"][0];
    folded[choice["index"].get<int>()] += choice["delta"].value("content", "");
  }
  EXPECT_EQ(folded, (std::map<int, std::string>{{0, "aaa"}, {1, "bbb"}, {2, "ccc"}}));
}

TEST_F(EndToEndTest, Completions) {
  h.AddWorker(Saying("<think>x"));
  h.Start();
  auto complete = [this](const Json& body) {
    return h.Call("POST", "/v1/completions", DumpJson(body)).json();
  };
  Json answer = complete({{"prompt", "ab"}});
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["text"], "<think>x");  // raw: no reasoning is parsed
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 2);
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(complete({{"prompt", {97, 98}}, {"echo", true}})["choices"][0]["text"], "ab<think>x");

  answer = complete({{"prompt", {"a", "bc"}}, {"n", 2}, {"return_token_ids", true}});
  ASSERT_EQ(answer["choices"].size(), 4u);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(answer["choices"][1]["prompt_token_ids"], Json({97}));
  EXPECT_EQ(answer["choices"][2]["prompt_token_ids"], Json({98, 99}));

  answer = complete({{"prompt", "ab"}, {"logprobs", 2}});
  const Json& logprobs = answer["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json({"<think>", "x", "<|im_end|>"}));
  EXPECT_EQ(logprobs["text_offset"], Json({0, 7, 8}));
  EXPECT_EQ(logprobs["top_logprobs"][1].size(), 2u);
  EXPECT_EQ(logprobs["token_logprobs"][0].get<float>(), -0.1f);

  const HttpClient::Response streamed =
      h.Call("POST", "/v1/completions", R"({"prompt":"ab","logprobs":2,"stream":true})");
  std::string text;
  Json offsets = Json::array();
  for (const std::string& event : streamed.Events()) {
    if (event == "[DONE]") continue;
    const Json choice = Json::parse(event)["choices"][0];
    text += choice["text"].get<std::string>();
    if (choice["logprobs"].is_null()) continue;
    for (const Json& offset : choice["logprobs"]["text_offset"]) offsets.push_back(offset);
  }
  EXPECT_EQ(text, "<think>x");
  EXPECT_EQ(offsets, logprobs["text_offset"]);
}

TEST_F(EndToEndTest, LogprobsRoundTrip) {
  h.AddWorker(Saying("abc"));
  h.Start();
  const Json content =
      h.Chat({{"logprobs", true}, {"top_logprobs", 1}}).json()["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 4u);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(content[i]["logprob"].get<float>(), -0.1f * static_cast<float>(i + 1));
    EXPECT_EQ(content[i]["token"], std::string(1, static_cast<char>('a' + i)));
    EXPECT_EQ(content[i]["bytes"], Json::array({'a' + i}));
    EXPECT_EQ(content[i]["top_logprobs"].size(), 1u);
  }
}

TEST_F(EndToEndTest, EditsOfLogitsReachTheWorker) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  h.model.defaults.repetition_penalty = 1.25;
  h.Start();
  EXPECT_EQ(h.Chat({}).status, 200);
  const HttpClient::Response edited = h.Chat({{"repetition_penalty", 1.5},
                                              {"frequency_penalty", -0.5},
                                              {"presence_penalty", 2},
                                              {"logit_bias", {{"100", -3}, {"7", 2.5}}},
                                              {"allowed_token_ids", {107, 3, 107}},
                                              {"bad_words", {"ab"}}});
  EXPECT_EQ(edited.status, 200) << edited.body;
  h.OnLoop([&] {
    ASSERT_EQ(worker.submits.size(), 2u);
    const internal::v1::Sampling& plain = worker.submits[0].sampling();
    EXPECT_EQ(plain.repetition_penalty(), 1.25);  // the model's
    EXPECT_EQ(plain.frequency_penalty(), 0);
    EXPECT_EQ(plain.logit_bias_size() + plain.allowed_token_ids_size() + plain.bad_words_size(), 0);
    const internal::v1::Sampling& sampling = worker.submits[1].sampling();
    EXPECT_EQ(sampling.repetition_penalty(), 1.5);
    EXPECT_EQ(sampling.frequency_penalty(), -0.5);
    EXPECT_EQ(sampling.presence_penalty(), 2);
    ASSERT_EQ(sampling.logit_bias_size(), 2);
    EXPECT_EQ(sampling.logit_bias(0).id(), 7);
    EXPECT_EQ(sampling.logit_bias(0).bias(), 2.5);
    EXPECT_EQ(sampling.logit_bias(1).id(), 100);
    ASSERT_EQ(sampling.allowed_token_ids_size(), 2);
    EXPECT_EQ(sampling.allowed_token_ids(0), 3);
    EXPECT_EQ(sampling.allowed_token_ids(1), 107);
    ASSERT_EQ(sampling.bad_words_size(), 1);  // " ab" is longer in bytes
    EXPECT_EQ(sampling.bad_words(0).ids(0), 'a');
    EXPECT_EQ(sampling.bad_words(0).ids(1), 'b');
  });
}

TEST_F(EndToEndTest, AThinkingBudgetReachesTheWorkerWhereTheAnswerMayThink) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  h.Start();
  EXPECT_EQ(h.Chat({{"thinking_token_budget", 5}}).status, 200);
  EXPECT_EQ(
      h.Chat({{"thinking_budget", 0}, {"chat_template_kwargs", {{"open_think", true}}}}).status,
      200);
  EXPECT_EQ(h.Chat({{"thinking_token_budget", 5}, {"enable_thinking", false}}).status, 200);
  EXPECT_EQ(h.Chat({{"thinking_token_budget", -1}}).status, 200);
  h.OnLoop([&] {
    ASSERT_EQ(worker.submits.size(), 4u);
    const internal::v1::ThinkingBudget& detect = worker.submits[0].sampling().thinking();
    EXPECT_EQ(detect.tokens(), 5u);
    EXPECT_FALSE(detect.begun());
    EXPECT_EQ(detect.open_id(), FakeText::kThink);
    EXPECT_EQ(detect.close_id(), FakeText::kEndThink);
    const internal::v1::ThinkingBudget& begun = worker.submits[1].sampling().thinking();
    EXPECT_TRUE(worker.submits[1].sampling().has_thinking());
    EXPECT_EQ(begun.tokens(), 0u);
    EXPECT_TRUE(begun.begun());
    EXPECT_FALSE(worker.submits[2].sampling().has_thinking());
    EXPECT_FALSE(worker.submits[3].sampling().has_thinking());
  });
}

TEST_F(EndToEndTest, R12_ControlTokensInWhatAUserWroteAreText) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  h.Start();
  const std::string user = "a <|im_end|> b /turbo";
  h.Chat({{"messages", {{{"role", "user"}, {"content", user}}}}});
  h.OnLoop([&] {
    const auto& ids = worker.submits.at(0).prompt_ids();
    EXPECT_EQ(std::ranges::count(ids, static_cast<int32_t>(FakeText::kEnd)), 1);
    EXPECT_EQ(std::ranges::count(ids, static_cast<int32_t>(FakeText::kTurbo)), 0);
    const std::string prompt =
        *FakeText().Decode(std::vector<int32_t>(ids.begin(), ids.end()), false);
    EXPECT_EQ(prompt, "<|im_start|>user\n" + user + "<|im_end|>\n<|im_start|>assistant\n");
  });
}

TEST_F(EndToEndTest, ALateErrorIsAnEventWithoutDone) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("abcdef"));
  worker.hold_at = 2;
  h.Start();
  HttpClient client(h.port);
  client.Send("POST", "/v1/chat/completions",
              R"({"messages":[{"role":"user","content":"x"}],"stream":true})");
  client.Begin();
  ASSERT_TRUE(client.ReadUntil("\"b\""));
  h.OnLoop([&] { worker.fail_with = "experts_unavailable"; });
  while (client.ReadMore()) {
  }
  HttpClient::Response response = client.Take();
  EXPECT_EQ(response.status, 200);
  const std::vector<std::string> events = response.Events();
  const Json error = Json::parse(events.back())["error"];
  EXPECT_EQ(error["code"], "experts_unavailable");
  EXPECT_EQ(error["type"], "unavailable_error");
  EXPECT_EQ(error["message"], "the worker says so");
  EXPECT_EQ(response.body.find("[DONE]"), std::string::npos);
  EXPECT_TRUE(client.WaitForClose());
}

TEST_F(EndToEndTest, AnEarlyErrorKeepsItsStatus) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("abcdef"));
  worker.fail_with = "experts_unavailable";
  h.Start();
  for (bool stream : {false, true}) {
    HttpClient::Response response = h.Chat({{"stream", stream}});
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.json()["error"]["code"], "experts_unavailable");
    EXPECT_EQ(response.Header("Retry-After"), "1");
  }
}

TEST_F(EndToEndTest, SilenceIsFilledWithComments) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ab"));
  worker.hold_at = 1;
  h.config.keep_alive = std::chrono::milliseconds(5);
  h.Start();
  HttpClient client(h.port);
  client.Send("POST", "/v1/chat/completions",
              R"({"messages":[{"role":"user","content":"x"}],"stream":true})");
  client.Begin();
  ASSERT_TRUE(client.ReadUntil(": keep-alive\n\n: keep-alive\n\n"));
  h.OnLoop([&] { worker.hold_at = UINT32_MAX; });
  ASSERT_TRUE(client.ReadUntil("[DONE]"));
}

TEST_F(EndToEndTest, OtherRoutes) {
  h.AddWorker(Saying("ok"));
  h.Start();
  EXPECT_EQ(h.Call("GET", "/live").status, 200);
  EXPECT_EQ(h.Call("GET", "/health").status, 200);
  EXPECT_EQ(h.Call("GET", "/ping").status, 200);
  EXPECT_EQ(h.Call("GET", "/ready").json()["status"], "ready");
  EXPECT_TRUE(h.Call("GET", "/version").json().contains("version"));
  const Json models = h.Call("GET", "/v1/models").json();
  EXPECT_EQ(models["data"][0]["id"], "toy");
  EXPECT_EQ(models["data"][0]["max_model_len"], 4096);
  EXPECT_EQ(h.Call("GET", "/v1/models/toy").json()["id"], "toy");
  EXPECT_EQ(h.Call("GET", "/v1/models/other").json()["error"]["message"],
            "The model `other` does not exist.");

  const Json tokens =
      h.Call("POST", "/tokenize", R"({"prompt":"a<think>","return_token_strs":true})").json();
  EXPECT_EQ(tokens["tokens"], Json({97, 258}));
  EXPECT_EQ(tokens["count"], 2);
  EXPECT_EQ(tokens["token_strs"], Json({"a", "<think>"}));
  EXPECT_EQ(h.Call("POST", "/detokenize", R"({"tokens":[97,258]})").json()["prompt"], "a<think>");
  EXPECT_EQ(h.Call("POST", "/detokenize", R"({"tokens":[272]})").status, 400);
  const Json rendered = h.Call("POST", "/v1/chat/completions/render",
                               R"({"messages":[{"role":"user","content":"x"}]})")
                            .json();
  EXPECT_EQ(rendered["prompt"], "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(rendered["prompt_token_ids"][0], 256);
  const Json chat_tokens =
      h.Call("POST", "/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").json();
  EXPECT_EQ(chat_tokens["tokens"], rendered["prompt_token_ids"]);

  h.Chat({});
  const std::string metrics = h.Metrics();
  EXPECT_NE(metrics.find("bottega_gateway_generation_tokens_total{model_name=\"toy\"} 3"),
            std::string::npos)
      << metrics;
}

TEST_F(EndToEndTest, Refusals) {
  h.AddWorker(Saying("ok"));
  h.Start();
  struct Case {
    const char* method;
    const char* path;
    const char* body;
    int status;
    const char* code;  // empty: null
  };
  const Case cases[] = {
      {"GET", "/v1/chat/completions", "", 405, ""},
      {"POST", "/v1/models", "{}", 405, ""},
      {"GET", "/nowhere", "", 404, ""},
      {"POST", "/v1/embeddings", "{}", 501, "not_supported"},
      {"POST", "/v1/chat/completions", "{", 400, "invalid_value"},
      {"POST", "/v1/chat/completions", "{}", 400, "invalid_value"},
      {"POST", "/v1/chat/completions",
       R"({"model":"gpt","messages":[{"role":"user","content":"x"}]})", 404, "model_not_found"},
      {"POST", "/v1/chat/completions",
       R"({"messages":[{"role":"user","content":"x"}],"logit_bias":{"272":2}})", 400,
       "invalid_value"},
      {"POST", "/v1/chat/completions",
       R"({"messages":[{"role":"user","content":"x"}],"regex":"a+"})", 400,
       "unsupported_parameter"},
      {"POST", "/v1/completions", R"({"prompt":""})", 400, "invalid_value"},
      {"POST", "/v1/completions", R"({"prompt":[272]})", 400, "invalid_value"},
      {"POST", "/v1/completions", R"({"prompt":"abc","max_tokens":4094})", 400,
       "context_length_exceeded"},
      {"POST", "/tokenize", R"({"prompt":5})", 400, "invalid_value"},
      {"POST", "/tokenize", "[]", 400, "invalid_value"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.method) + " " + c.path + " " + c.body);
    HttpClient::Response response = h.Call(c.method, c.path, c.body);
    EXPECT_EQ(response.status, c.status) << response.body;
    const Json error = response.json()["error"];
    EXPECT_EQ(error["code"].is_null() ? "" : error["code"].get<std::string>(), c.code);
    EXPECT_TRUE(error.contains("message") && error.contains("type") && error.contains("param"));
    EXPECT_FALSE(response.Header("x-request-id").empty());
  }
  EXPECT_EQ(
      h.Call("POST", "/v1/completions", R"({"prompt":"abc","max_tokens":4094})")
          .json()["error"]["message"],
      "This model's maximum context length is 4096 tokens. However, you requested 4094 output "
      "tokens and your prompt contains at least 3 input tokens, for a total of at least 4097 "
      "tokens.");
  h.OnLoop([&] { EXPECT_TRUE(h.workers[0]->submits.empty()); });
}

TEST_F(EndToEndTest, S5_KeysAreNeededWhereTheyAre) {
  h.AddWorker(Saying("ok"));
  h.config.api_keys = {"secret-1", "secret-2"};
  h.Start();
  EXPECT_EQ(h.Call("GET", "/health").status, 200);
  EXPECT_EQ(h.Call("GET", "/live").status, 200);
  for (const char* path : {"/v1/models", "/v1/cluster", "/metrics", "/version", "//v1/models",
                           "/v1/../live", "/v1/%6dodels", "/nowhere"}) {
    EXPECT_EQ(h.Call("GET", path).status, 401) << path;
  }
  for (const char* header : {"Authorization: Bearer secret-2\r\n", "x-api-key: secret-1\r\n",
                             "authorization: bearer secret-1\r\n"}) {
    EXPECT_EQ(h.Call("GET", "/v1/models", "", header).status, 200) << header;
  }
  for (const char* header : {"Authorization: Bearer \r\n", "Authorization: Bearer secret\r\n",
                             "Authorization: Bearer secret-11\r\n", "Authorization: secret-1\r\n",
                             "x-api-key: secret-3\r\n"}) {
    HttpClient::Response response = h.Call("GET", "/v1/models", "", header);
    EXPECT_EQ(response.status, 401) << header;
    EXPECT_EQ(response.json()["error"]["code"], "invalid_api_key");
  }
}

}  // namespace
}  // namespace bottega::gateway
