#include <gtest/gtest.h>
#include <prometheus/registry.h>

#include "core/service/local_network.h"
#include "gateway/gateway_service.h"
#include "tests/gateway/fake_attention_worker.h"
#include "tests/gateway/fake_text.h"

namespace bottega::gateway {
namespace {

using namespace std::chrono_literals;

// An answer kept in memory.
class KeptReply : public Reply {
 public:
  void Whole(int s, Headers, std::string b) override {
    status = s;
    body = std::move(b);
    ended = true;
  }
  void StartEvents(Headers) override { status = 200; }
  bool Write(std::string bytes) override {
    body += bytes;
    return true;
  }
  void Finish(bool) override { ended = true; }
  void Cut() override { ended = cut = true; }
  void OnGone(std::function<void()> g) override { gone = std::move(g); }

  int status = 0;
  std::string body;
  bool ended = false, cut = false;
  std::function<void()> gone;
};

// What a worker says depends on the prompt, the choice and the index only, as the real one's.
FakeAttentionWorker::Next Speak(const internal::v1::Submit& submit, uint32_t index) {
  uint32_t hash = submit.sampling().choice();
  for (int32_t id : submit.prompt_ids()) hash = hash * 131 + static_cast<uint32_t>(id);
  return {static_cast<int32_t>('a' + (hash + index * 7) % 26), index == 30 + hash % 5};
}

// A gateway and two workers in one simulated thread; the network delays, resets and one worker is
// killed and comes back.
class World {
 public:
  enum Faults { kNoFaults, kDelays, kDelaysAndResets };

  World(uint64_t seed, Faults faults, FakeAttentionWorker::Script script = Speak)
      : loop_(Loop::Simulated(seed)),
        network_(*loop_,
                 faults == kNoFaults
                     ? nullptr
                     : SeededFaults(*loop_, {.reset_probability = faults == kDelays ? 0 : 0.003})) {
    GatewayConfig config;
    config.text_threads = 0;
    service_ = std::make_unique<GatewayService>(context_, config, FakeModel());
    auto table = std::make_shared<ClusterTable>();
    table->layers = table->experts = 1;
    table->replicas = {{MemberId{1000}}};
    for (uint32_t i = 1; i <= 2; ++i) {
      FakeAttentionWorker::Options options{.id = MemberId{i},
                                           .node = NodeId{100 + i},
                                           .address = "attention-" + std::to_string(i),
                                           .slots = 3};
      workers_.push_back(std::make_unique<FakeAttentionWorker>(*loop_, network_, options, script));
      table->members.push_back(workers_.back()->AsMember());
    }
    service_->Start();
    service_->UpdateTable(table);
  }
  ~World() {
    service_->Close();
    loop_->Kill(NodeId{1});
    loop_->Kill(NodeId{101});
    loop_->Kill(NodeId{102});
  }

  std::shared_ptr<KeptReply> Ask(int i, bool stream, int priority = 0) {
    return Ask(Api::kCompletion,
               R"({"prompt":"question )" + std::to_string(i) +
                   R"(","n":2,"seed":1,"logprobs":1,"cache_salt":"mine","priority":)" +
                   std::to_string(priority) + R"(,"stream":)" + (stream ? "true}" : "false}"),
               "r" + std::to_string(i));
  }
  std::shared_ptr<KeptReply> Ask(Api api, std::string body, std::string id) {
    HttpRequest request{.method = "POST",
                        .path = api == Api::kChat ? "/v1/chat/completions" : "/v1/completions",
                        .body = std::move(body),
                        .request_id = std::move(id)};
    auto reply = std::make_shared<KeptReply>();
    service_->Generate(api, std::move(request), reply);
    return reply;
  }

  // Until all have ended; the clock is virtual.
  void Finish(const std::vector<std::shared_ptr<KeptReply>>& replies) {
    for (int slice = 0; slice < 600; ++slice) {
      loop_->RunUntil(loop_->Now() + 100ms);
      if (std::ranges::all_of(replies, [](const auto& reply) { return reply->ended; })) return;
    }
    FAIL() << "a request never ended";
  }
  Loop& loop() { return *loop_; }
  GatewayService& service() { return *service_; }
  FakeAttentionWorker& worker(int i) { return *workers_[i]; }

 private:
  std::unique_ptr<Loop> loop_;
  LocalNetwork network_;
  prometheus::Registry registry_;
  FaultPoints faults_;
  ServiceContext context_{.loop = *loop_,
                          .node = NodeId{1},
                          .network = network_,
                          .metrics = registry_,
                          .faults = faults_,
                          .role = Role::kGateway,
                          .incarnation = Incarnation{1},
                          .name = "gateway",
                          .log = Logger("gateway", "gateway")};
  std::unique_ptr<GatewayService> service_;
  std::vector<std::unique_ptr<FakeAttentionWorker>> workers_;
};

std::string Choices(const KeptReply& reply) {
  return Json::parse(reply.body).value("choices", Json()).dump();
}

class SimulatedTest : public testing::Test {
 protected:
  void SetUp() override { CaptureLog(&lines_); }
  void TearDown() override { CaptureLog(nullptr); }
  std::string lines_;
};

TEST_F(SimulatedTest, FaultsChangeNoByte) {
  constexpr int kRequests = 10;
  std::vector<std::string> clean;
  {
    World world(1, World::kNoFaults);
    std::vector<std::shared_ptr<KeptReply>> replies;
    for (int i = 0; i < kRequests; ++i) replies.push_back(world.Ask(i, false));
    world.Finish(replies);
    for (const auto& reply : replies) {
      ASSERT_EQ(reply->status, 200) << reply->body;
      clean.push_back(Choices(*reply));
    }
  }
  size_t migrated = 0, failed = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed, World::kDelaysAndResets);
    std::vector<std::shared_ptr<KeptReply>> replies;
    for (int i = 0; i < kRequests; ++i) replies.push_back(world.Ask(i, false));
    world.loop().RunUntil(world.loop().Now() + 3ms);
    world.worker(static_cast<int>(seed % 2)).Break();
    world.Finish(replies);
    for (int i = 0; i < kRequests; ++i) {
      if (replies[i]->status == 200) {
        EXPECT_EQ(Choices(*replies[i]), clean[i]);
      } else {
        ++failed;  // lost four workers: says so
        EXPECT_EQ(Json::parse(replies[i]->body)["error"]["code"], "no_worker");
      }
    }
    for (int w = 0; w < 2; ++w) {
      for (const auto& submit : world.worker(w).submits) migrated += submit.owner_epoch() > 1;
    }
    EXPECT_EQ(world.service().gate().inside(), 0u);
    EXPECT_EQ(world.service().admission().waiting(), 0u);
  }
  EXPECT_GT(migrated, 100u);  // the faults were there
  EXPECT_LT(failed, 30u);
}

// Its worker is lost after each token of an answer that thinks, speaks and calls two tools; then
// the one after it, too.
TEST_F(SimulatedTest, W20_ToolCallsSurviveTheLossOfTheirWorkerAtEveryToken) {
  const std::vector<int32_t> ids = *FakeText().Encode(
      "<think>\nso <tool_call>\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"disk_usage\", "
      "\"arguments\": {\"path\": "
      "\"\\\"}è\"}}\n</tool_call>\n<tool_call>{\"arguments\":{\"a\":True},"
      "\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"f\",\"arguments\":{\"a\":True}}</"
      "tool_call>",
      {});
  const auto script = [&ids](const internal::v1::Submit&, uint32_t index) {
    if (index >= ids.size()) return FakeAttentionWorker::Next{FakeText::kEnd, true};
    return FakeAttentionWorker::Next{ids[index], false};
  };
  const auto answer = [&](bool stream, uint32_t lost_at) {
    World world(1, World::kNoFaults, script);
    const auto reply = world.Ask(
        Api::kChat,
        R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"return_token_ids":true,
            "tools":[{"type":"function","function":{"name":"disk.usage"}}],"stream":)" +
            std::string(stream ? "true}" : "false}"),
        "r");
    for (const uint32_t at : {lost_at, lost_at + 1}) {
      if (lost_at == 0) break;
      for (int i : {0, 1}) world.worker(i).hold_at = at;
      world.loop().RunUntil(world.loop().Now() + 100ms);
      for (int i : {0, 1}) {
        if (world.worker(i).live() > 0) world.worker(i).Break();
      }
    }
    for (int i : {0, 1}) world.worker(i).hold_at = UINT32_MAX;
    world.Finish({reply});
    EXPECT_EQ(reply->status, 200) << reply->body;
    const size_t submits = world.worker(0).submits.size() + world.worker(1).submits.size();
    EXPECT_EQ(submits, lost_at == 0 ? 1u : 3u) << "lost at " << lost_at;
    // Of a stream each chunk says when its request came.
    std::string body = reply->body;
    constexpr std::string_view kCreated = "\"created\":";
    for (size_t at = 0; (at = body.find(kCreated, at)) != std::string::npos;) {
      at += kCreated.size();
      body.erase(at, body.find(',', at) - at);
    }
    return body;
  };
  for (const bool stream : {false, true}) {
    const std::string calm = answer(stream, 0);
    EXPECT_NE(calm.find("disk.usage"), std::string::npos) << calm;
    EXPECT_NE(calm.find("\"finish_reason\":\"tool_calls\""), std::string::npos) << calm;
    for (uint32_t lost_at = 1; lost_at < ids.size(); ++lost_at) {
      ASSERT_EQ(answer(stream, lost_at), calm) << "lost at " << lost_at;
    }
  }
}

// The salt goes to the worker; what was cached comes back, of each prompt once.
TEST_F(SimulatedTest, SaltAndCachedTokensArePassedOn) {
  World world(1, World::kNoFaults);
  const auto usage = [&](uint32_t cached) {
    for (int i = 0; i < 2; ++i) world.worker(i).cached_tokens = cached;
    const auto reply = world.Ask(1, false);  // two choices
    world.Finish({reply});
    return Json::parse(reply->body)["usage"];
  };
  EXPECT_EQ(usage(0)["prompt_tokens_details"]["cached_tokens"], 0);
  EXPECT_EQ(usage(3)["prompt_tokens_details"]["cached_tokens"], 3);
  const Json most = usage(1'000'000);  // more than there was is no count
  EXPECT_EQ(most["prompt_tokens_details"]["cached_tokens"], most["prompt_tokens"]);
  for (int i = 0; i < 2; ++i) {
    for (const auto& submit : world.worker(i).submits) EXPECT_EQ(submit.cache_salt(), "mine");
  }
}

// In the queue the least goes first; workers are told, too.
TEST_F(SimulatedTest, PriorityIsTheOrderOfTheQueue) {
  World world(1, World::kNoFaults);
  std::vector<std::shared_ptr<KeptReply>> replies;
  for (int i = 0; i < 3; ++i) replies.push_back(world.Ask(i, false));  // take all places
  world.loop().RunUntil(world.loop().Now() + 1ms);
  const auto submitted = [&] {
    return world.worker(0).submits.size() + world.worker(1).submits.size();
  };
  ASSERT_EQ(submitted(), 6u);
  int i = 3;
  for (int priority : {7, 0, -3, 7, -3, 0}) replies.push_back(world.Ask(i++, false, priority));
  world.loop().RunUntil(world.loop().Now() + 1ms);
  ASSERT_EQ(submitted(), 6u) << "nobody waits";
  world.Finish(replies);
  for (int worker : {0, 1}) {
    std::vector<int32_t> waited;
    for (const auto& submit : world.worker(worker).submits) waited.push_back(submit.priority());
    ASSERT_GT(waited.size(), 3u);
    waited.erase(waited.begin(), waited.begin() + 3);
    EXPECT_TRUE(std::ranges::is_sorted(waited)) << testing::PrintToString(waited);
    EXPECT_EQ(waited.back(), 7);
  }
}

// What a worker grants and what it is sent cross on the way; a slot is spent once all the same.
TEST_F(SimulatedTest, OneGatewayIsNeverToldBusy) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    World world(seed, World::kDelays);
    std::vector<std::shared_ptr<KeptReply>> replies;
    for (int i = 0; i < 20; ++i) replies.push_back(world.Ask(i, false));
    world.Finish(replies);
    for (const auto& reply : replies) EXPECT_EQ(reply->status, 200) << reply->body;
    EXPECT_EQ(world.worker(0).refused + world.worker(1).refused, 0u) << "seed " << seed;
  }
}

TEST_F(SimulatedTest, ClientsThatLeaveAtAnyMomentLeaveNothing) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed, World::kDelaysAndResets);
    std::vector<std::shared_ptr<KeptReply>> replies;
    for (int i = 0; i < 10; ++i) replies.push_back(world.Ask(i, i % 2 == 0));
    for (auto& reply : replies) {
      world.loop().RunUntil(world.loop().Now() + Duration(world.loop().SimRandom() % 1'500'000));
      if (reply->gone && !reply->ended) reply->gone();
    }
    world.Finish(replies);
    world.loop().RunUntil(world.loop().Now() + 1s);
    EXPECT_EQ(world.service().gate().inside(), 0u);
    EXPECT_EQ(world.service().admission().waiting(), 0u);
    EXPECT_EQ(world.worker(0).live() + world.worker(1).live(), 0u);
  }
}

}  // namespace
}  // namespace bottega::gateway
