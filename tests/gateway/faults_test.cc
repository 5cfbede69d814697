#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "gateway/gateway_service.h"
#include "tests/gateway/gateway_harness.h"

namespace bottega::gateway {
namespace {

using namespace std::chrono_literals;

constexpr char kStream[] = R"({"messages":[{"role":"user","content":"x"}],"stream":true})";
constexpr char kWhole[] = R"({"messages":[{"role":"user","content":"x"}]})";

// Never ends by itself.
FakeAttentionWorker::Next Babble(const internal::v1::Submit&, uint32_t index) {
  return {static_cast<int32_t>('a' + index % 26), false};
}

class FaultsTest : public testing::Test {
 protected:
  void Send(HttpClient& client, const char* body, const std::string& headers = "") {
    client.Send("POST", "/v1/chat/completions", body, headers);
    client.Begin();
  }
  GatewayHarness h;
};

TEST_F(FaultsTest, AClientThatLeavesIsCancelled) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 3;
  h.Start();
  for (const char* body : {kStream, kWhole}) {
    HttpClient client(h.port);
    Send(client, body);
    h.WaitFor([&] { return worker.live() == 1; });
    client.Close();
    // Held at three tokens: nothing but the cancel can end it.
    h.WaitFor([&] { return worker.live() == 0; });
  }
  h.WaitFor([&] { return h.server().live_requests() == 0; });
  h.OnLoop([&] { EXPECT_EQ(worker.cancels.size(), 2u); });
  EXPECT_NE(h.Metrics().find("bottega_gateway_disconnects_total 2"), std::string::npos);
}

TEST_F(FaultsTest, EveryChoiceOfALeavingClientIsCancelled) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  HttpClient client(h.port);
  Send(client, R"({"messages":[{"role":"user","content":"x"}],"n":3})");
  h.WaitFor([&] { return worker.live() == 3; });
  client.Close();
  h.WaitFor([&] { return worker.live() == 0 && worker.cancels.size() == 3; });
}

TEST_F(FaultsTest, AClientThatLeavesTheQueueIsNeverRun) {
  FakeAttentionWorker& worker = h.AddWorker(Babble, {.slots = 1});
  worker.hold_at = 1;
  h.Start();
  HttpClient first(h.port);
  Send(first, kStream);
  h.WaitFor([&] { return worker.live() == 1; });
  HttpClient second(h.port);
  Send(second, kStream);
  h.WaitFor([&] { return h.server().live_requests() == 2; });
  second.Close();
  h.WaitFor([&] { return h.server().live_requests() == 1; });
  first.Close();
  h.WaitFor([&] { return h.server().live_requests() == 0; });
  h.OnLoop([&] { EXPECT_EQ(worker.submits.size(), 1u); });
}

TEST_F(FaultsTest, AReaderThatDoesNotReadIsCut) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  h.model = FakeModel(1 << 20);
  h.config.send_buffer_bytes = 4096;
  h.Start();
  HttpClient slow(h.port, 2048);
  Send(slow, kStream);
  // It never reads: its buffer fills, it is cut, its sequence is cancelled.
  h.WaitFor([&] { return worker.cancels.size() == 1; });
  h.WaitFor([&] { return h.server().live_requests() == 0; });
  h.OnLoop([&] { EXPECT_GT(worker.tokens, 500u); });
}

TEST_F(FaultsTest, AnotherWorkerGoesOnWithTheSameStream) {
  // A worker's own words never matter: what it says depends on the prompt and the index only.
  const std::string text = "<think>\nlong thought, è vero\n</think>\n\nand a long answer";
  FakeAttentionWorker& first = h.AddWorker(Saying(text));
  FakeAttentionWorker& second = h.AddWorker(Saying(text));
  h.Start();
  const std::string clean = h.Chat({}).json()["choices"][0].dump();
  h.OnLoop([&] {
    first.submits.clear();
    first.tokens = 0;
    first.hold_at = 12;
    second.hold_at = 20;
  });
  HttpClient client(h.port);
  Send(client, kWhole);
  h.WaitFor([&] { return first.live() == 1 && first.tokens == 12; });
  h.OnLoop([&] { h.network.Kill(NodeId{101}); });
  h.WaitFor([&] { return second.live() == 1; });
  h.OnLoop([&] {
    const internal::v1::Submit& submit = second.submits.back();
    EXPECT_EQ(submit.owner_epoch(), 2u);
    EXPECT_EQ(submit.resume_tokens_size(), 12);
    second.hold_at = UINT32_MAX;
  });
  while (client.ReadMore()) {
  }
  EXPECT_EQ(client.Take().json()["choices"][0].dump(), clean);
  EXPECT_NE(h.Metrics().find("failovers_total{outcome=\"resumed\"} 1"), std::string::npos);
}

TEST_F(FaultsTest, AWorkerThatComesBackIsUsedAgain) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("abcdef"));
  worker.hold_at = 2;
  h.Start();
  HttpClient client(h.port);
  Send(client, kWhole);
  h.WaitFor([&] { return worker.tokens >= 2; });
  h.OnLoop([&] {
    worker.hold_at = UINT32_MAX;
    worker.Break();
  });
  while (client.ReadMore()) {
  }
  EXPECT_EQ(client.Take().json()["choices"][0]["message"]["content"], "abcdef");
  h.OnLoop([&] {
    EXPECT_EQ(worker.submits.size(), 2u);
    EXPECT_EQ(worker.submits.back().resume_tokens_size(), 2);
  });
}

TEST_F(FaultsTest, AfterThreeMigrationsTheRequestFails) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  HttpClient client(h.port);
  Send(client, kStream);
  for (size_t i = 1; i <= 4; ++i) {
    h.WaitFor([&] { return worker.submits.size() == i && worker.tokens >= 1; });
    h.OnLoop([&] { worker.Break(); });
  }
  while (client.ReadMore()) {
  }
  HttpClient::Response response = client.Take();
  EXPECT_EQ(Json::parse(response.Events().back())["error"]["code"], "no_worker");
}

// One request kills whoever computes its fifth token. Two workers die of it, no more; it is
// refused, then and later; all others that were with it end as if it had not been there.
TEST_F(FaultsTest, ARequestThatKillsItsWorkersIsQuarantined) {
  const std::string text = "nobody else hears of it";
  for (int i = 0; i < 2; ++i) {
    FakeAttentionWorker& worker = h.AddWorker(Saying(text));
    worker.step_time = 1ms;
    worker.hold_at = 3;
    worker.dies_of = [](const internal::v1::Submit& submit) {
      return submit.sampling().seed() == 666 && submit.resume_tokens_size() >= 4;
    };
    worker.on_death = [this] { h.server().UpdateTable(h.Table()); };
  }
  h.Start();
  const auto all = [&](uint64_t FakeAttentionWorker::*count) {
    uint64_t sum = 0;
    for (const auto& worker : h.workers) sum += (*worker).*count;
    return sum;
  };
  std::vector<std::unique_ptr<HttpClient>> innocent;
  for (int i = 0; i < 6; ++i) {
    innocent.push_back(std::make_unique<HttpClient>(h.port));
    Send(*innocent.back(), kWhole);
  }
  HttpClient poison(h.port);
  const char* body = R"({"messages":[{"role":"user","content":"x"}],"seed":666})";
  Send(poison, body);
  h.WaitFor([&] { return all(&FakeAttentionWorker::tokens) == 7 * 3; });
  h.OnLoop([&] {
    for (const auto& worker : h.workers) worker->hold_at = UINT32_MAX;
  });
  for (auto& client : innocent) {
    while (client->ReadMore()) {
    }
    EXPECT_EQ(client->Take().json()["choices"][0]["message"]["content"], text);
  }
  while (poison.ReadMore()) {
  }
  HttpClient::Response response = poison.Take();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "request_quarantined");
  h.OnLoop([&] { EXPECT_EQ(all(&FakeAttentionWorker::deaths), 2u); });
  response = h.Call("POST", "/v1/chat/completions", body);
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "request_quarantined");
  EXPECT_EQ(h.Chat({{"seed", 667}}).status, 200);
  h.OnLoop([&] { EXPECT_EQ(all(&FakeAttentionWorker::deaths), 2u); });
  EXPECT_NE(h.Metrics().find("bottega_gateway_quarantined_total 1"), std::string::npos);
}

// A worker that stops in the middle is given up by the gateway alone; what it says when it goes on
// is dropped, and it is used again.
TEST_F(FaultsTest, ASilentWorkerIsGivenUpAndUsedAgainOnceItSpeaks) {
  FakeAttentionWorker& first = h.AddWorker(Saying("abcdefghij"));
  FakeAttentionWorker& second = h.AddWorker(Saying("abcdefghij"));
  h.config.worker_silence_max = 100ms;
  first.hold_at = second.hold_at = 4;
  h.Start();
  HttpClient client(h.port);
  Send(client, kWhole);
  h.WaitFor([&] { return first.tokens == 4; });
  h.OnLoop([&] {
    first.stopped = true;
    second.hold_at = UINT32_MAX;
  });
  while (client.ReadMore()) {
  }
  EXPECT_EQ(client.Take().json()["choices"][0]["message"]["content"], "abcdefghij");
  h.OnLoop([&] {
    EXPECT_EQ(second.trials, 1u);
    first.stopped = false;
    first.hold_at = UINT32_MAX;
    second.hold_at = 0;
  });
  h.WaitFor([&] { return h.server().service().workers().Workers().size() == 2; });
  h.OnLoop([&] { h.network.Kill(NodeId{102}); });
  EXPECT_EQ(h.Chat({}).json()["choices"][0]["message"]["content"], "abcdefghij");
}

// A broken connection is no death: the request that was on trial goes on.
TEST_F(FaultsTest, ABrokenStreamQuarantinesNobody) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("abcdef"));
  worker.hold_at = 2;
  h.Start();
  HttpClient client(h.port);
  Send(client, kWhole);
  h.WaitFor([&] { return worker.tokens == 2; });
  for (uint64_t trials = 1; trials <= 2; ++trials) {
    h.OnLoop([&] { worker.Break(); });
    h.WaitFor([&] { return worker.trials == trials; });
  }
  h.OnLoop([&] { worker.hold_at = UINT32_MAX; });
  while (client.ReadMore()) {
  }
  EXPECT_EQ(client.Take().json()["choices"][0]["message"]["content"], "abcdef");
}

TEST_F(FaultsTest, ARequestStaysWithItsNumerics) {
  FakeAttentionWorker& first = h.AddWorker(Saying("abcdef"));
  FakeAttentionWorker& second = h.AddWorker(Saying("uvwxyz"), {.numerics_id = "other"});
  h.config.no_worker_wait = 1h;
  h.config.queue_age_max = 50ms;
  first.hold_at = second.hold_at = 2;
  h.Start();
  HttpClient client(h.port);
  Send(client, kWhole);
  h.WaitFor([&] { return first.live() + second.live() == 1; });
  h.OnLoop([&] { h.network.Kill(first.live() == 1 ? NodeId{101} : NodeId{102}); });
  while (client.ReadMore()) {
  }
  EXPECT_EQ(client.Take().status, 429);  // waited for its own kind in vain
  h.OnLoop([&] { EXPECT_EQ(first.submits.size() + second.submits.size(), 1u); });
}

// O12: a worker of the version before would leave the fields out without a word.
TEST_F(FaultsTest, O12_EditsOfLogitsAreNotForWorkersOfTheVersionBefore) {
  FakeAttentionWorker& old = h.AddWorker(Saying("old"), {.knows_new_fields = false});
  FakeAttentionWorker& knows = h.AddWorker(Saying("new"));
  old.hold_at = knows.hold_at = 2;
  h.config.queue_age_max = 50ms;
  h.Start();
  const std::vector<Json> edits = {{{"presence_penalty", 1}},
                                   {{"frequency_penalty", -0.5}},
                                   {{"repetition_penalty", 1.1}},
                                   {{"logit_bias", {{"5", 1}}}},
                                   {{"allowed_token_ids", {97, 98}}},
                                   {{"bad_words", {"zz"}}},
                                   {{"min_tokens", 1}},
                                   {{"thinking_token_budget", 1}}};
  h.OnLoop([&] { knows.hold_at = UINT32_MAX; });
  for (const Json& fields : edits) {
    EXPECT_EQ(h.Chat(fields).json()["choices"][0]["message"]["content"], "new") << fields;
  }
  h.OnLoop([&] {
    EXPECT_TRUE(old.submits.empty());
    h.network.Kill(NodeId{102});
  });
  const HttpClient::Response refused = h.Chat({{"presence_penalty", 1}});
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(refused.json()["error"]["code"], "no_worker");
  h.OnLoop([&] {
    EXPECT_TRUE(old.submits.empty());
    old.hold_at = UINT32_MAX;
  });
  EXPECT_EQ(h.Chat({}).json()["choices"][0]["message"]["content"], "old");
}

TEST_F(FaultsTest, BusyIsAskedAgain) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  worker.busy = 3;
  h.Start();
  HttpClient::Response response = h.Chat({});
  EXPECT_EQ(response.json()["choices"][0]["message"]["content"], "ok");
  h.OnLoop([&] { EXPECT_EQ(worker.submits.size(), 4u); });
}

// It is refused by its age, however often a worker was asked in between.
TEST_F(FaultsTest, BusyIsNotAskedForEver) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  worker.busy = 1'000'000;
  h.config.queue_age_max = 100ms;
  h.Start();
  EXPECT_EQ(h.Chat({}).status, 429);
  h.OnLoop([&] { EXPECT_GT(worker.submits.size(), 1u); });
}

TEST_F(FaultsTest, RequestsWaitForSlotsInOrder) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"), {.slots = 2});
  worker.hold_at = 1;
  h.Start();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (size_t i = 0; i < 6; ++i) {
    clients.push_back(std::make_unique<HttpClient>(h.port));
    Send(*clients.back(), kWhole, "x-request-id: r" + std::to_string(i) + "\r\n");
    h.WaitFor([&] { return h.server().live_requests() == i + 1; });
  }
  h.WaitFor([&] { return worker.live() == 2; });
  h.OnLoop([&] {
    EXPECT_EQ(worker.submits.size(), 2u);
    worker.hold_at = UINT32_MAX;
  });
  for (auto& client : clients) {
    while (client->ReadMore()) {
    }
    EXPECT_EQ(client->Take().status, 200);
  }
  h.OnLoop([&] {
    std::vector<uint64_t> keys;
    for (const auto& submit : worker.submits) keys.push_back(submit.request_key());
    EXPECT_TRUE(std::ranges::is_sorted(keys));
    EXPECT_EQ(std::set<uint64_t>(keys.begin(), keys.end()).size(), 6u);
  });
}

TEST_F(FaultsTest, AFullQueueRefuses) {
  FakeAttentionWorker& worker = h.AddWorker(Babble, {.slots = 1});
  worker.hold_at = 1;
  h.config.queued_requests_max = 2;
  h.Start();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (size_t i = 0; i < 3; ++i) {  // one runs, two wait
    clients.push_back(std::make_unique<HttpClient>(h.port));
    Send(*clients.back(), kStream);
    h.WaitFor([&] { return h.server().live_requests() == i + 1 && worker.live() == 1; });
  }
  HttpClient::Response response = h.Chat({});
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.json()["error"]["code"], "queue_full");
  EXPECT_FALSE(response.Header("Retry-After").empty());
  EXPECT_FALSE(response.Header("retry-after-ms").empty());
}

TEST_F(FaultsTest, ADeadlineInTheQueueIsNeverRun) {
  FakeAttentionWorker& worker = h.AddWorker(Babble, {.slots = 1});
  worker.hold_at = 1;
  h.Start();
  HttpClient first(h.port);
  Send(first, kStream);
  h.WaitFor([&] { return worker.live() == 1; });
  HttpClient::Response response = h.Chat({}, "x-request-timeout-ms: 20\r\n");
  EXPECT_EQ(response.status, 504);
  EXPECT_EQ(response.json()["error"]["code"], "deadline_exceeded");
  h.OnLoop([&] { EXPECT_EQ(worker.submits.size(), 1u); });
}

TEST_F(FaultsTest, ADeadlineWhileRunningCancels) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  EXPECT_EQ(h.Chat({}, "x-request-timeout-ms: 50\r\n").status, 504);
  h.WaitFor([&] { return worker.live() == 0 && worker.cancels.size() == 1; });
}

TEST_F(FaultsTest, NoWorkerIsSaid) {
  h.config.no_worker_wait = 10ms;
  h.Start();
  HttpClient::Response response = h.Chat({});
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.json()["error"]["code"], "no_worker");
  EXPECT_FALSE(response.Header("Retry-After").empty());
  HttpClient::Response ready = h.Call("GET", "/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(h.Call("GET", "/v1/models").status, 200);
}

TEST_F(FaultsTest, AnIdInUseIsRefused) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  HttpClient first(h.port);
  Send(first, R"({"messages":[{"role":"user","content":"x"}],"request_id":"mine"})");
  h.WaitFor([&] { return worker.live() == 1; });
  HttpClient::Response response = h.Chat({{"request_id", "mine"}});
  EXPECT_EQ(response.status, 409);
  EXPECT_EQ(response.json()["error"]["code"], "request_id_in_use");
  first.Close();
  h.WaitFor([&] { return worker.live() == 0; });
}

Task<void> DrainThen(GatewayServer* server, Loop* loop, Duration time, bool* drained) {
  const Time deadline = loop->Now() + time;
  absl::Status status = co_await server->Drain(deadline);
  *drained = status.ok();
}

TEST_F(FaultsTest, DrainingFinishesWhatRuns) {
  FakeAttentionWorker& worker = h.AddWorker(Saying("ok"));
  worker.hold_at = 1;
  h.Start();
  HttpClient idle(h.port);
  idle.Send("GET", "/v1/models");
  EXPECT_EQ(idle.Read().status, 200);
  HttpClient fresh(h.port);  // has connected, and will ask
  HttpClient first(h.port);
  Send(first, kWhole);
  h.WaitFor([&] { return worker.live() == 1; });
  bool drained = false;
  h.OnLoop([&] { h.loop->Spawn(NodeId{50}, DrainThen(&h.server(), h.loop.get(), 1h, &drained)); });
  EXPECT_TRUE(idle.WaitForClose());
  EXPECT_THROW(HttpClient(h.port), boost::system::system_error) << "it listens no more";
  fresh.Send("GET", "/v1/models");
  const HttpClient::Response last = fresh.Read();
  EXPECT_EQ(last.status, 200);
  EXPECT_EQ(last.Header("Connection"), "close");
  h.OnLoop([&] {
    EXPECT_FALSE(drained);
    worker.hold_at = UINT32_MAX;
  });
  while (first.ReadMore()) {
  }
  EXPECT_EQ(first.Take().status, 200);
  h.WaitFor([&] { return drained; });
}

TEST_F(FaultsTest, WhatADrainCannotFinishIsToldSo) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  HttpClient streamed(h.port), whole(h.port);
  Send(streamed, kStream);
  Send(whole, kWhole);
  h.WaitFor([&] { return worker.live() == 2; });
  bool drained = false;
  h.OnLoop(
      [&] { h.loop->Spawn(NodeId{50}, DrainThen(&h.server(), h.loop.get(), 50ms, &drained)); });
  while (whole.ReadMore()) {
  }
  const HttpClient::Response refused = whole.Take();
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "draining");
  while (streamed.ReadMore()) {
  }
  EXPECT_THAT(streamed.Take().body, testing::HasSubstr(R"("code":"draining")"));
  h.WaitFor([&] { return drained && worker.live() == 0; });
}

TEST_F(FaultsTest, StopCutsWhatRuns) {
  FakeAttentionWorker& worker = h.AddWorker(Babble);
  worker.hold_at = 1;
  h.Start();
  HttpClient first(h.port);
  Send(first, kStream);
  h.WaitFor([&] { return worker.live() == 1; });
  h.OnLoop([&] { h.server().Stop(); });
  EXPECT_TRUE(first.WaitForClose());
}

}  // namespace
}  // namespace bottega::gateway
