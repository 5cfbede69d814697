// The life of a token (docs/architecture.md), with every actor real and in this one thread: the
// place to put a breakpoint. Run under gdb:
//   gdb --args build/debug/tests/fabric_one_token_test
// and break at gateway::ServeStream, Engine::Step, Dispatcher::Dispatch, Route,
// ExpertEngine::RunWork.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/kernels/sample.h"
#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_world.h"
#include "tests/golden/packed_graph.h"

namespace bottega::fabric {
namespace {

using namespace std::chrono_literals;
using gateway::Json;

// What the model alone says comes next, without a cluster.
TokenLogprob NextByModel(const Cpu& cpu, const std::vector<int32_t>& prompt) {
  const FabricModel& model = FabricModel::Get();
  PackedGraph graph(model.packed(), {.row_type = DType::kF32});
  const std::vector<float> logits = graph.Feed(0, prompt, prompt.size());  // [tokens, vocab]
  const int64_t vocab = model.packed()->config().vocab_size;
  SampleRow row{.logits = logits.data() + (prompt.size() - 1) * static_cast<size_t>(vocab),
                .params = {.temperature = 0},
                .position = static_cast<int64_t>(prompt.size())};
  Sampler(vocab, 1).Sample(cpu, absl::MakeSpan(&row, 1));
  return row.chosen;
}

TEST(OneTokenTest, GoesThroughTheWholeCluster) {
  OpenLogSink({.least = LogLevel::kError});

  // A gateway, a router, an attention worker, two expert workers with half of the experts each.
  ClusterWorld cluster({.seed = 1, .attention_workers = 1, .expert_workers = 2, .replication = 1});
  ASSERT_TRUE(cluster.BecomeReady());

  // The client asks for one token after a prompt.
  const Json body = {{"messages", {{{"role", "user"}, {"content", "Quanto fa 2 + 2?"}}}},
                     {"max_tokens", 1},
                     {"temperature", 0},
                     {"logprobs", true},
                     {"return_token_ids", true}};

  // gateway: admit → render template → tokenize → choose attention worker → log
  const std::shared_ptr<Answer> answer = cluster.Ask(gateway::Api::kChat, body.dump());

  // attention worker: embed; per layer attend, gate, dispatch ─▶ expert workers ─▶ combine; sample
  ASSERT_TRUE(cluster.RunUntil([&] { return answer->done(); }, 10s));

  // gateway: token log → detokenize → stream to the client
  ASSERT_EQ(answer->status(), 200) << answer->body();
  const Json whole = Json::parse(answer->body());
  const Json& choice = whole["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(whole["usage"]["completion_tokens"], 1);

  // It is the token that the model alone names, and the whole cluster has worked for it.
  const auto prompt = whole["prompt_token_ids"].get<std::vector<int32_t>>();
  const auto tokens = choice["token_ids"].get<std::vector<int32_t>>();
  ASSERT_EQ(tokens.size(), 1u);
  const TokenLogprob next = NextByModel(cluster.cpu(), prompt);
  EXPECT_EQ(tokens[0], next.token);
  EXPECT_EQ(choice["logprobs"]["content"][0]["logprob"].get<double>(), next.logprob);  // every bit
  uint64_t rows = 0;
  for (uint32_t worker : {0, 1}) {
    const ExpertStats& stats = cluster.expert(worker).engine().stats();
    EXPECT_GT(stats.rows_prefill, 0u) << "expert worker " << worker;
    rows += stats.rows_prefill + stats.rows_decode;
  }
  const ModelConfig& model = FabricModel::Get().packed()->config();
  EXPECT_EQ(rows, prompt.size() * static_cast<uint64_t>(model.num_layers) *
                      static_cast<uint64_t>(model.experts_per_token));
}

}  // namespace
}  // namespace bottega::fabric
