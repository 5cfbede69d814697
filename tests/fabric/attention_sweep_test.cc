// W16, W17, W19, W20, W21 at every step of a request: its attention worker is lost in each prefill
// chunk and at each token, and the answer is the one without faults, logprobs to the bit.
// BOTTEGA_FABRIC_SEEDS=n sweeps n seeds of the network.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "core/base/check.h"
#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_requests.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;
using gateway::Api;
using gateway::Json;

constexpr int64_t kChunk = 4;            // prompt tokens in one step
constexpr int kPrompt = 13;              // four chunks, the last of one token
constexpr uint64_t kStepAfterToken = 8;  // chunks of prompt and what is resumed, and a token
constexpr int kSeedOfAThought = 27;
constexpr int kBudgetOfAThought = 2;  // tokens, less than it has
constexpr Duration kLong = 60s;
constexpr Duration kFine = 5us;  // shorter than any step
constexpr char kCount[] = "aw.step=sleep:0ms,aw.before_emit=sleep:0ms";

enum class Loss {
  kKilled,         // as a step begins
  kKilledSampled,  // between sampling and emitting
  kCut,            // from the gateway, both ways, and back again: a zombie that goes on working
};

// Nothing but this can be said: every other pair of its tokens is a bad word. Two words would be
// cut into tokens of their own kind, so words are made unlikely where anything else may stand.
Json CallingTools(Json request) {
  const std::string cycle[] = {
      "<tool_call>", "{\"", "name", "\":", " \"", "function", "\"}", "</tool_call>"};
  for (size_t i = 0; i < std::size(cycle); ++i) {
    for (size_t j = 0; j < std::size(cycle); ++j) {
      if (j != (i + 1) % std::size(cycle)) request["bad_words"].push_back(cycle[i] + cycle[j]);
    }
  }
  request["allowed_token_ids"] = {1019, 267, 310, 260, 259, 302, 447, 1020};
  request["logit_bias"] = {{"1019", 100}, {"310", -50}, {"302", -50}};
  request["request_id"] = "one";  // ids of calls are made of it
  request["tools"] = {{{"type", "function"}, {"function", {{"name", "function"}}}}};
  return request;
}

// What a replay has to rebuild: random state, logprobs, stop strings, several choices, text, counts
// of tokens, beginnings of words, what is thought and what is said, calls of tools.
std::vector<Json> Requests() {
  std::vector<int> prompt;
  for (int i = 0; i < kPrompt; ++i) prompt.push_back((i * 71 + 5) % 1000);
  const Json plain = {{"prompt", prompt},         {"max_tokens", 24}, {"ignore_eos", true},
                      {"return_token_ids", true}, {"logprobs", 3},    {"seed", 11}};
  Json greedy = plain, seeded = plain, choices = plain, stops = plain;
  Json penalties = plain, masks = plain;
  greedy.update({{"temperature", 0}, {"max_tokens", 64}});
  seeded.update({{"temperature", 1.2}, {"top_p", 0.9}, {"stream", true}});
  choices.update({{"temperature", 1}, {"n", 3}, {"max_tokens", 8}});
  stops.update({{"temperature", 1}, {"stop", {"zq", "never said"}}, {"stream", true}});
  penalties.update({{"temperature", 0.4},
                    {"max_tokens", 64},
                    {"repetition_penalty", 1.2},
                    {"frequency_penalty", 0.3},
                    {"presence_penalty", 0.5}});
  Json bias = Json::object(), allowed = Json::array();
  for (int id = 0; id < 1000; id += 2) {
    allowed.push_back(id);
    if (id % 5 == 0) bias[std::to_string(id)] = id % 3 - 1;
  }
  masks.update({{"temperature", 0.7},
                {"logit_bias", bias},
                {"allowed_token_ids", allowed},
                {"bad_words", {"e", "per", "an", "ch", "st"}},
                {"min_tokens", 10},
                {"stream", true}});
  // <think> and </think> are made likely, and with this seed they come where they belong.
  const Json thought = {{"messages", {{{"role", "user"}, {"content", "Perché?"}}}},
                        {"logit_bias", {{"1014", 6}, {"1015", 6}}},
                        {"max_tokens", 24},
                        {"ignore_eos", true},
                        {"return_token_ids", true},
                        {"logprobs", true},
                        {"top_logprobs", 3},
                        {"seed", kSeedOfAThought},
                        {"temperature", 1},
                        {"stream", true}};
  // The same thought, cut at its budget.
  Json cut = thought;
  cut["thinking_token_budget"] = kBudgetOfAThought;
  return {greedy, seeded, choices, stops, penalties, masks, thought, cut, CallingTools(thought)};
}

Api ApiOf(const Json& request) {
  return request.contains("messages") ? Api::kChat : Api::kCompletion;
}

// The same request with nothing done to its logits.
Json WithoutEdits(Json request) {
  for (const char* name : {"repetition_penalty", "frequency_penalty", "presence_penalty",
                           "logit_bias", "allowed_token_ids", "bad_words"}) {
    request.erase(name);
  }
  return request;
}

class Sweep {
 public:
  // draft_tokens 0: no speculation.
  Sweep(uint64_t seed, int64_t draft_tokens)
      : world_({.seed = seed,
                .attention_workers = 2,
                .expert_workers = 2,
                .prefill_tokens = kChunk,
                .draft_tokens = draft_tokens}) {
    CHECK(world_.BecomeReady());
    blocks_ = world_.gateway().workers().Workers().front().free_blocks;
  }

  // Loses the request's worker at its `step`-th step; false if it has none so late.
  bool Lose(const Json& request, Loss loss, uint64_t step, const std::string& expected) {
    EXPECT_TRUE(world_.BecomeReady());
    const std::string point = loss == Loss::kKilledSampled ? "aw.before_emit" : "aw.step";
    for (uint32_t i = 0; i < 2; ++i) Arm(i, loss, step);
    const auto answer = world_.Ask(ApiOf(request), request.dump());
    std::optional<uint32_t> owner;
    world_.RunUntil(
        [&] {
          for (uint32_t i = 0; i < 2; ++i) {
            if (world_.attention_faults(i).hits(point) >= step) owner = i;
          }
          return owner.has_value() || answer->done();
        },
        kLong, kFine);
    if (owner) Strike(*owner, loss);
    EXPECT_TRUE(world_.RunUntil([&] { return answer->done(); }, kLong));
    const std::string got = Comparable(*answer);
    const auto other = std::ranges::mismatch(got, expected).in1 - got.begin();
    EXPECT_TRUE(got == expected) << "loss " << static_cast<int>(loss) << " at step " << step
                                 << ", differs at " << other << ": " << got.substr(other, 200);
    if (owner) Restore(*owner, loss);
    return owner.has_value();
  }

  std::string Calm(const Json& request) {
    EXPECT_TRUE(world_.BecomeReady());
    const auto answer = world_.Ask(ApiOf(request), request.dump());
    EXPECT_TRUE(world_.RunUntil([&] { return answer->done(); }, kLong));
    EXPECT_EQ(answer->status(), 200) << answer->body();
    return Comparable(*answer);
  }

  // Kills the request's worker `times` times, each time after a token of it: sooner, it would be
  // taken for the cause. The client's status.
  int LoseAgainAndAgain(const Json& request, int times) {
    EXPECT_TRUE(world_.BecomeReady());
    const auto answer = world_.Ask(ApiOf(request), request.dump());
    for (int i = 0; i < times; ++i) {
      for (uint32_t w = 0; w < 2; ++w) Arm(w, Loss::kKilled, kStepAfterToken);
      std::optional<uint32_t> owner;
      world_.RunUntil(
          [&] {
            for (uint32_t w = 0; w < 2; ++w) {
              if (world_.attention_faults(w).hits("aw.step") >= kStepAfterToken) owner = w;
            }
            return owner.has_value() || answer->done();
          },
          kLong, kFine);
      if (!owner) break;
      Strike(*owner, Loss::kKilled);
      world_.StartAttention(*owner);
    }
    EXPECT_TRUE(world_.RunUntil([&] { return answer->done(); }, kLong));
    return answer->status();
  }

  // "" once both workers are there and nobody holds a block or a frame.
  std::string Held() {
    std::string held;
    world_.RunUntil(
        [&] {
          held.clear();
          const auto workers = world_.gateway().workers().Workers();
          if (workers.size() != 2) held = fmt::format("{} workers", workers.size());
          for (const auto& worker : workers) {
            if (worker.free_blocks != blocks_)
              held = fmt::format("{} of {} blocks", worker.free_blocks, blocks_);
          }
          if (const size_t frames = world_.frames_leased()) held = fmt::format("{} frames", frames);
          return held.empty();
        },
        kLong);
    return held;
  }

 private:
  void Arm(uint32_t worker, Loss loss, uint64_t step) {
    FaultPoints& faults = world_.attention_faults(worker);
    ASSERT_TRUE(faults.Arm(kCount).ok());
    // Sampled and not told: what a kill there leaves behind.
    if (loss != Loss::kKilledSampled) return;
    ASSERT_TRUE(faults.Arm("aw.before_emit=error@" + std::to_string(step)).ok());
  }
  void Strike(uint32_t worker, Loss loss) {
    world_.attention_faults(1 - worker).Disarm("aw.before_emit");
    if (loss != Loss::kCut) return world_.KillAttention(worker);
    const NodeId node = *world_.attention_node(worker);
    world_.network().Cut(node, world_.gateway_node());
    world_.network().Cut(world_.gateway_node(), node);
  }
  void Restore(uint32_t worker, Loss loss) {
    if (loss != Loss::kCut) return world_.StartAttention(worker);
    const NodeId node = *world_.attention_node(worker);
    world_.network().Heal(node, world_.gateway_node());
    world_.network().Heal(world_.gateway_node(), node);
  }

  ClusterWorld world_;
  uint32_t blocks_ = 0;  // of an attention worker's pool
};

uint64_t Seeds() {
  const char* value = std::getenv("BOTTEGA_FABRIC_SEEDS");
  return value == nullptr ? 1 : std::strtoull(value, nullptr, 10);
}

class AttentionSweepTest : public testing::TestWithParam<Loss> {
 protected:
  static void SetUpTestSuite() { OpenLogSink({.least = LogLevel::kError}); }
};

TEST_P(AttentionSweepTest, W16_W20_EveryStepOfARequestMayLoseItsWorker) {
  for (uint64_t seed = 1; seed <= Seeds(); ++seed) {
    for (const int64_t draft_tokens : {0, 8}) {
      Sweep sweep(seed, draft_tokens);
      for (const Json& request : Requests()) {
        // Choices are at both workers: the one that lives on would lose what it sampled, too.
        if (GetParam() == Loss::kKilledSampled && request.contains("n")) continue;
        const std::string expected = sweep.Calm(request);
        if (request.contains("tools")) {
          EXPECT_NE(expected.find(R"("delta":{"tool_calls":[{"index":2,"id":")"), std::string::npos)
              << expected;
        } else if (ApiOf(request) == Api::kChat) {  // of both kinds
          EXPECT_NE(expected.find(R"("delta":{"reasoning":")"), std::string::npos) << expected;
          EXPECT_NE(expected.find(R"("delta":{"content":")"), std::string::npos) << expected;
        }
        if (request.contains("thinking_token_budget")) {
          Json free = request;
          free.erase("thinking_token_budget");
          EXPECT_NE(sweep.Calm(free), expected);
        }
        const Json unedited = WithoutEdits(request);
        if (unedited != request) {
          EXPECT_NE(sweep.Calm(unedited), expected);
        }
        uint64_t steps = 0;
        while (sweep.Lose(request, GetParam(), steps + 1, expected)) ++steps;
        // Every chunk but the last emits nothing; then a token a step, or more with speculation. A
        // chat's prompt fills a block and may be cached.
        const uint64_t tokens = request["max_tokens"];
        const bool chat = ApiOf(request) == Api::kChat;
        const uint64_t chunks = chat ? 1 : (kPrompt + kChunk - 1) / kChunk;
        const bool sampled = GetParam() == Loss::kKilledSampled;
        if (!request.contains("stop") && draft_tokens == 0) {
          EXPECT_GE(steps, sampled ? tokens : tokens + chunks - 1) << "seed " << seed;
        }
        EXPECT_EQ(sweep.Held(), "") << "seed " << seed;
        if (HasFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Losses, AttentionSweepTest,
                         testing::Values(Loss::kKilled, Loss::kKilledSampled, Loss::kCut));

TEST(AttentionLossesTest, ARequestGoesOnThreeTimesAndThenEnds) {
  Sweep sweep(1, 0);
  const Json request = Requests().front();
  EXPECT_EQ(sweep.LoseAgainAndAgain(request, limits::kMigrationsMax), 200);
  EXPECT_EQ(sweep.LoseAgainAndAgain(request, limits::kMigrationsMax + 1), 503);
}

}  // namespace
}  // namespace bottega::fabric
