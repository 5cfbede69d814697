// `bottega chat` with a prompt or a pipe, against a server that follows a script.
#include "cli/chat.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/chat_client.h"
#include "cli/interrupt.h"
#include "core/base/limits.h"
#include "tests/cli/fake_server.h"

namespace bottega {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

struct Outcome {
  int code;
  std::string out, err;
};

// Runs the command with `input` as its stdin.
Outcome Chat(const std::string& input, const std::vector<std::string>& arguments) {
  std::vector<const char*> argv = {"chat"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::FILE* file = std::tmpfile();
  std::fwrite(input.data(), 1, input.size(), file);
  std::fflush(file);
  std::rewind(file);
  const int stdin_before = dup(STDIN_FILENO);
  dup2(fileno(file), STDIN_FILENO);
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = RunChat(static_cast<int>(argv.size()), argv.data());
  Outcome outcome{code, testing::internal::GetCapturedStdout(),
                  testing::internal::GetCapturedStderr()};
  dup2(stdin_before, STDIN_FILENO);
  close(stdin_before);
  std::fclose(file);
  return outcome;
}

Json BodyOf(const std::string& request) {
  return Json::parse(request.substr(request.find("\r\n\r\n") + 4), nullptr, false);
}

const std::vector<std::string> kAnswer = {": keep-alive\n\n",
                                          DeltaEvent("content", ""),
                                          DeltaEvent("reasoning", "Two and two\nis "),
                                          DeltaEvent("reasoning", "four."),
                                          DeltaEvent("content", "It is "),
                                          DeltaEvent("content", "\xc3\xa8 4."),
                                          FinishEvent("stop"),
                                          UsageEvent(9),
                                          kDone};

TEST(ChatTest, PromptGivenAsWords) {
  FakeServer server({EventReply(kAnswer)});
  const Outcome outcome = Chat("not read", {"--url", server.url(), "What", "is 2 + 2?"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "It is \xc3\xa8 4.\n");
  EXPECT_EQ(outcome.err, "Thinking:\nTwo and two\nis four.\n");
  const std::string& request = server.Requests().at(0);
  EXPECT_THAT(request,
              AllOf(StartsWith("POST /v1/chat/completions HTTP/1.1\r\n"),
                    HasSubstr("Content-Type: application/json\r\n"),
                    HasSubstr("Accept: text/event-stream\r\n"), Not(HasSubstr("Authorization"))));
  EXPECT_EQ(BodyOf(request),
            Json::parse(R"({"messages": [{"role": "user", "content": "What is 2 + 2?"}],
                            "stream": true, "stream_options": {"include_usage": true}})"));
}

TEST(ChatTest, PromptThroughAPipe) {
  FakeServer server({EventReply(kAnswer)});
  const Outcome outcome =
      Chat("one\n\n  two\n\n", {"--url", server.url() + "/v1", "--hide-reasoning"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "It is \xc3\xa8 4.\n");
  EXPECT_THAT(outcome.err, IsEmpty());
  EXPECT_EQ(BodyOf(server.Requests().at(0))["messages"][0]["content"], "one\n\n  two");
}

TEST(ChatTest, OptionsReachTheServer) {
  FakeServer server({EventReply(kAnswer)});
  const Outcome outcome =
      Chat("", {"--url",     server.url(),   "--model", "m",       "--temperature",
                "0.5",       "--max-tokens", "1K",      "--seed",  "3",
                "--think",   "on",           "--lang",  "ita",     "--system",
                "Be brief.", "--api-key",    "secret",  "--stats", "x\xff"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(server.Requests().at(0), HasSubstr("Authorization: Bearer secret\r\n"));
  EXPECT_EQ(BodyOf(server.Requests().at(0)), Json::parse(R"({
    "model": "m", "temperature": 0.5, "max_completion_tokens": 1024, "seed": 3, "stream": true,
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x�"}],
    "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    "chat_template_kwargs": {"enable_thinking": true, "enable_turbo": false,
                             "reasoning_lang": "ita"}})"));
  EXPECT_THAT(outcome.err, HasSubstr("\nfirst token after "));
  EXPECT_THAT(outcome.err, HasSubstr(" s, 9 tokens"));
}

TEST(ChatTest, ModesOfThinking) {
  const auto kwargs = [](const std::string& think) {
    ChatSettings settings{.think = think};
    return Json::parse(ChatRequestBody(settings, {}))["chat_template_kwargs"];
  };
  EXPECT_EQ(kwargs(""), nullptr);
  EXPECT_EQ(kwargs("off"), (Json{{"enable_thinking", false}, {"enable_turbo", false}}));
  EXPECT_EQ(kwargs("turbo"), (Json{{"enable_thinking", true}, {"enable_turbo", true}}));
  FakeServer server({EventReply(kAnswer)});
  EXPECT_EQ(Chat("", {"--url", server.url(), "--quick", "x"}).code, 0);
  EXPECT_EQ(BodyOf(server.Requests().at(0))["chat_template_kwargs"], kwargs("turbo"));
}

TEST(ChatTest, EndAtTheLimitIsTold) {
  FakeServer server({EventReply(
      {DeltaEvent("content", "It is\n"), FinishEvent("length"), UsageEvent(1), kDone})});
  const Outcome outcome = Chat("", {"--url", server.url(), "x"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "It is\n");
  EXPECT_THAT(outcome.err, HasSubstr("cut off"));
}

TEST(ChatTest, RefusalShowsTheServersMessage) {
  FakeServer server({WholeReply(
      404, R"({"error": {"message": "The model `x` does not exist.\u001b[2J", "code": null}})")});
  const Outcome outcome = Chat("", {"--url", server.url(), "--model", "x", "hi"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "error: The model `x` does not exist.[2J (HTTP 404)\n");
  EXPECT_THAT(outcome.out, IsEmpty());
}

TEST(ChatTest, LateErrorShowsTheServersMessage) {
  FakeServer server({EventReply({DeltaEvent("content", "It is"),
                                 "data: {\"error\":{\"message\":\"no replica is left\"}}\n\n"})});
  const Outcome outcome = Chat("", {"--url", server.url(), "hi"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "It is\n");
  EXPECT_EQ(outcome.err, "error: no replica is left\n");
}

TEST(ChatTest, AnswersOfNoModelServer) {
  const std::vector<std::pair<FakeServer::Reply, std::string>> cases = {
      {WholeReply(200, "{}"), "sent no event stream"},
      {WholeReply(500, "<html>"), "no reason given (HTTP 500)"},
      {WholeReply(400, R"({"error": "plain"})"), "plain (HTTP 400)"},
      {EventReply({"data: <html>\n\n"}), "an event that is no JSON"},
      {EventReply({"data: {\"choices\":{}}\n\n", "data: 7\n\n", kDone}), ""},
      {EventReply({"data: " + std::string(limits::kClientEventBytesMax + 1, 'x')}),
       "an event past all bounds"},
      {{{"SSH-2.0-OpenSSH\r\n"}}, "broke before the reply had ended"},
      {{{}}, "broke before the reply had ended"},
  };
  for (const auto& [reply, message] : cases) {
    FakeServer server({reply});
    const Outcome outcome = Chat("", {"--url", server.url(), "hi"});
    EXPECT_EQ(outcome.code, message.empty() ? 0 : 1) << message;
    EXPECT_THAT(outcome.err, HasSubstr(message));
  }
}

// The server dies: the connection ends after each byte of the answer.
TEST(ChatTest, ConnectionCutAnywhere) {
  const FakeServer::Reply whole =
      EventReply({DeltaEvent("content", "It"), DeltaEvent("content", " is 4"), kDone});
  std::string bytes;
  for (const std::string& piece : whole.pieces) bytes += piece;
  const size_t done = bytes.find(kDone) + sizeof kDone - 1;
  std::vector<FakeServer::Reply> cuts;
  for (size_t length = 0; length <= bytes.size(); length += 3) {
    cuts.push_back({{bytes.substr(0, length)}});
  }
  const size_t count = cuts.size();
  FakeServer server(std::move(cuts));
  for (size_t i = 0; i < count; ++i) {
    const Outcome outcome = Chat("", {"--url", server.url(), "hi"});
    const size_t length = 3 * i;
    EXPECT_EQ(outcome.code, length >= done ? 0 : 1) << length;
    EXPECT_EQ(outcome.err.find("broke") == std::string::npos, length >= done) << length;
    EXPECT_THAT(std::string("It is 4\n"),
                StartsWith(outcome.out.substr(0, outcome.out.find('\n'))));
  }
}

TEST(ChatTest, NobodyThere) {
  const RefusingPort nobody;
  const std::string url = fmt::format("http://127.0.0.1:{}", nobody.port());
  const Outcome outcome = Chat("", {"--url", url, "hi"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("error: nothing answers at " + url),
                                 HasSubstr("`bottega serve DIR`")));
}

TEST(ChatTest, WrongUsage) {
  EXPECT_EQ(Chat("", {"--url", "https://x", "hi"}).code, 2);
  EXPECT_EQ(Chat("", {"--temperature", "3", "hi"}).code, 2);
  EXPECT_THAT(Chat("", {"--think", "maybe", "hi"}).err, HasSubstr("error: --think: \"maybe\""));
  EXPECT_EQ(Chat("", {"--colour", "hi"}).code, 2);
  const Outcome empty = Chat("\n", {});
  EXPECT_EQ(empty.code, 2);
  EXPECT_THAT(empty.err, HasSubstr("stdin is empty"));
  EXPECT_EQ(Chat("", {"--help"}).code, 0);
}

// Ctrl-C in the middle of an answer: the request ends, the server sees the client leave.
TEST(ChatTest, InterruptStopsTheAnswer) {
  Interrupt interrupt;  // before the server's thread, which inherits the mask
  FakeServer::Reply reply = EventReply({DeltaEvent("content", "It is")}, false);
  reply.hold = true;
  FakeServer server({reply, EventReply(kAnswer)});
  const ChatClient client(HttpClient(*ParseUrl(server.url()), "", interrupt.fd()));
  ChatAnswer answer;
  const auto nothing = [](std::string_view) {};
  const auto press = [](std::string_view) { kill(getpid(), SIGINT); };
  EXPECT_TRUE(absl::IsCancelled(client.Ask({}, {{"user", "hi"}}, {nothing, press}, &answer)));
  EXPECT_EQ(answer.content, "It is");
  EXPECT_TRUE(interrupt.Take());
  // And only that answer.
  answer = {};
  EXPECT_TRUE(client.Ask({}, {{"user", "hi"}}, {nothing, nothing}, &answer).ok());
  EXPECT_EQ(answer.content, "It is \xc3\xa8 4.");
  EXPECT_EQ(answer.finish_reason, "stop");
  EXPECT_EQ(answer.tokens, 9);
  EXPECT_EQ(server.Requests().size(), 2u);
}

const FakeServer::Reply kLoading42 = ReadyReply(503, R"({"status":"loading","progress":0.42})");

TEST(ChatTest, AServerThatLoadsIsWaitedFor) {
  FakeServer server({ReadyReply(503, R"({"status":"loading","progress":0.07})"), kLoading42,
                     ReadyReply(200, R"({"status":"ready"})"), EventReply(kAnswer)});
  const Outcome outcome = Chat("", {"--url", server.url(), "--hide-reasoning", "2 + 2?"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out, "It is \xc3\xa8 4.\n");
  EXPECT_EQ(outcome.err,
            "the server is loading 0 %\nthe server is loading 40 %\n"
            "the server is loading 100 %\n");
  EXPECT_EQ(server.Requests().size(), 4u);
}

TEST(ChatTest, AServerThatCannotServeIsAskedAllTheSame) {
  FakeServer server(
      {ReadyReply(503, R"({"status":"no_worker","progress":1.00})"), EventReply(kAnswer)});
  EXPECT_EQ(Chat("", {"--url", server.url(), "2 + 2?"}).code, 0);
  FakeServer other({ReadyReply(404, "not JSON"), EventReply(kAnswer)});
  EXPECT_EQ(Chat("", {"--url", other.url(), "2 + 2?"}).code, 0);
}

TEST(ChatTest, ALoadThatStandsStillIsNotWaitedForForEver) {
  FakeServer server({kLoading42, kLoading42});
  const ChatClient client(HttpClient(*ParseUrl(server.url()), "", -1));
  std::vector<double> seen;
  const absl::Status end =
      client.WaitLoaded([&seen](double progress) { seen.push_back(progress); }, Duration::zero());
  EXPECT_TRUE(absl::IsDeadlineExceeded(end)) << end;
  EXPECT_THAT(std::string(end.message()), HasSubstr("stood at 42 %"));
  EXPECT_THAT(seen, testing::ElementsAre(0.42));
}

TEST(ChatTest, CtrlCEndsTheWaitForALoad) {
  Interrupt interrupt;  // before the server's thread
  FakeServer server({kLoading42});
  const ChatClient client(HttpClient(*ParseUrl(server.url()), "", interrupt.fd()));
  const auto press = [](double) { kill(getpid(), SIGINT); };
  EXPECT_TRUE(absl::IsCancelled(client.WaitLoaded(press)));
}

TEST(ChatTest, FirstModel) {
  FakeServer server({WholeReply(200, R"({"data": [{"id": "tiny"}]})"), WholeReply(200, "[]"),
                     WholeReply(503, R"({"error": {"message": "loading"}})")});
  const ChatClient client(HttpClient(*ParseUrl(server.url()), "", -1));
  EXPECT_EQ(*client.FirstModel(), "tiny");
  EXPECT_THAT(std::string(client.FirstModel().status().message()), HasSubstr("lists no model"));
  EXPECT_THAT(std::string(client.FirstModel().status().message()), HasSubstr("loading (HTTP 503)"));
  EXPECT_THAT(server.Requests().at(0), StartsWith("GET /v1/models HTTP/1.1\r\n"));
}

}  // namespace
}  // namespace bottega
