// D5: an answer is the same to the byte whatever else is computed, with whatever: random mixes of
// batch, chunks of prefill, threads, workers, prefix-cache hits and preemptions, of every weight
// format and row type on every instruction set. BOTTEGA_FABRIC_SEEDS=n runs n mixes;
// BOTTEGA_FABRIC_SEED=s one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "attention-worker/kv_cache.h"
#include "gateway/json.h"
#include "observability/log.h"
#include "tests/fabric/cluster_requests.h"
#include "tests/fabric/cluster_world.h"

namespace bottega::fabric {
namespace {

using gateway::Api;
using gateway::Json;
using namespace std::chrono_literals;

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

using Prompt = std::vector<uint32_t>;

// `shared` tokens with which others begin too, then `own` that depend on `name`.
Prompt MakePrompt(uint32_t shared, uint32_t own, uint32_t name) {
  Prompt prompt;
  for (uint32_t i = 0; i < shared; ++i) prompt.push_back(i * 13 % 1000);
  for (uint32_t i = 0; i < own; ++i) prompt.push_back((name * 101 + i * i * 7) % 1000);
  return prompt;
}

constexpr int32_t kLongest = 100;  // positions of a request, prompt and answer

// Greedy and seeded, whole and streamed, chat and completions, some that begin alike.
std::vector<KnownRequest> Victims() {
  const auto chat = [](Json more) {
    Json body = {{"messages", {{{"role", "user"}, {"content", "Chi sei?"}}}},
                 {"logprobs", true},
                 {"top_logprobs", 5}};
    body.update(more);
    return KnownRequest{Api::kChat, body.dump(), ""};
  };
  const auto completion = [](const Prompt& prompt, Json more) {
    Json body = {{"prompt", prompt}, {"logprobs", 5}};
    body.update(more);
    return KnownRequest{Api::kCompletion, body.dump(), ""};
  };
  const auto with = [](uint32_t max_tokens, Json more) {
    Json body = {{"max_tokens", max_tokens}, {"ignore_eos", true}, {"return_token_ids", true}};
    body.update(more);
    return body;
  };
  const Json greedy = {{"temperature", 0}};
  return {
      completion(MakePrompt(0, 5, 1), with(20, greedy)),
      completion(MakePrompt(48, 7, 2), with(16, {{"temperature", 1}, {"seed", 7}})),
      completion(
          MakePrompt(33, 17, 3),
          with(12, {{"temperature", 0.8}, {"top_p", 0.9}, {"top_k", 50}, {"seed", 11}, {"n", 2}})),
      completion(MakePrompt(16, 76, 4), with(8, {{"temperature", 0}, {"stream", true}})),
      chat(with(14, greedy)),
      chat(with(10, {{"temperature", 1.3}, {"seed", 3}, {"stream", true}})),
  };
}

// With the answers of the plainest cluster: each alone, one worker of each kind, no prefix cache,
// scalar code, one thread. Its numbers are those of its weights and its rows, and of nothing else.
const std::vector<KnownRequest>& VictimsOf(WeightFormat weights, DType row_type) {
  static std::map<std::pair<WeightFormat, DType>, std::vector<KnownRequest>> known;
  std::vector<KnownRequest>& victims = known[{weights, row_type}];
  if (!victims.empty()) return victims;
  ClusterWorld cluster({.seed = 1,
                        .attention_workers = 1,
                        .expert_workers = 1,
                        .prefix_cache = false,
                        .weights = weights,
                        .row_type = row_type,
                        .isa = Isa::kScalar,
                        .threads = 1});
  CHECK(cluster.BecomeReady());
  for (KnownRequest& victim : victims = Victims()) {
    const std::shared_ptr<Answer> answer = cluster.Ask(victim.api, victim.body);
    CHECK(cluster.RunUntil([&] { return answer->done(); }, 60s));
    victim.answer = Comparable(*answer);
    if (answer->status() != 200) std::fprintf(stderr, "%s\n", victim.answer.c_str());
    CHECK(answer->status() == 200);
  }
  return victims;
}

// Where they part, and how the first goes on there; empty: nowhere.
std::string Difference(const std::string& got, const std::string& expected) {
  if (got == expected) return "";
  const auto at = std::ranges::mismatch(got, expected).in1 - got.begin();
  const size_t from = static_cast<size_t>(std::max<ptrdiff_t>(0, at - 100));
  return fmt::format("at byte {}: {}", at, got.substr(from, 200));
}

// Every weight format on every instruction set that this machine has.
struct Arithmetic {
  WeightFormat weights;
  Isa isa;
};
const std::vector<Arithmetic>& EveryArithmetic() {
  static const std::vector<Arithmetic> all = [] {
    std::vector<Arithmetic> found;
    for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      if (!HasIsa(isa)) continue;
      for (WeightFormat weights : kEveryWeightFormat) found.push_back({weights, isa});
    }
    return found;
  }();
  return all;
}

// One mix: a random cluster, the victims and noise at random times.
class Mix {
 public:
  // What happened; without it the bytes prove nothing.
  struct Totals {
    uint64_t answers = 0, preemptions = 0, cached_tokens = 0;
    uint64_t batches = 0;       // moments at which several sequences decoded at one worker
    size_t largest = 0;         // sequences in such a batch
    uint64_t part_prompts = 0;  // moments at which a part of a prompt was computed
    std::map<std::string, uint64_t> mixes;  // by arithmetic
    std::map<DType, uint64_t> row_types;    // mixes by row type
  };

  explicit Mix(uint64_t seed)
      : random_(seed),
        arithmetic_(EveryArithmetic()[(seed - 1) % EveryArithmetic().size()]),
        options_(RandomOptions(seed)) {}

  void Run(Totals& totals) {
    const std::vector<KnownRequest>& victims = VictimsOf(arithmetic_.weights, options_.row_type);
    ClusterWorld world(options_);
    ASSERT_TRUE(world.BecomeReady());
    std::vector<Arrival> arrivals = RandomArrivals(victims);
    const Time start = world.loop().Now();
    for (Arrival& arrival : arrivals) {
      const Duration wait = start + arrival.at - world.loop().Now();
      if (wait > 0ms)
        Watch(
            world, [] { return false; }, wait, totals);
      arrival.answer = world.Ask(arrival.api, arrival.body);
    }
    const auto answered = [&] {
      return std::ranges::all_of(arrivals, [](const Arrival& a) { return a.answer->done(); });
    };
    ASSERT_TRUE(Watch(world, answered, 60s, totals));
    for (const Arrival& arrival : arrivals) {
      EXPECT_EQ(arrival.answer->status(), 200) << arrival.answer->body();
      if (arrival.victim == nullptr) continue;
      ++totals.answers;
      EXPECT_EQ(Difference(Comparable(*arrival.answer), arrival.victim->answer), "")
          << arrival.body;
    }
    for (uint32_t i = 0; i < options_.attention_workers; ++i) {
      const Scheduler& scheduler = world.attention(i).engine().scheduler();
      totals.preemptions += scheduler.preemptions();
      totals.cached_tokens += scheduler.cache_hit_tokens();
    }
    ++totals.mixes[fmt::format("{} {}", Name(arithmetic_.weights), Name(arithmetic_.isa))];
    ++totals.row_types[options_.row_type];
  }

  std::string Describe() const {
    return fmt::format(
        "{} {}, rows of {}, {} threads, {} attention and {} expert workers, {} replicas, {} KV "
        "bytes, chunks "
        "of {}, prefix cache {}",
        Name(options_.weights), Name(options_.isa), Name(options_.row_type), options_.threads,
        options_.attention_workers, options_.expert_workers, options_.replication,
        options_.kv_bytes, options_.prefill_tokens, options_.prefix_cache);
  }

 private:
  struct Arrival {
    Duration at{};
    Api api = Api::kCompletion;
    std::string body;
    const KnownRequest* victim = nullptr;  // null: noise
    std::shared_ptr<Answer> answer;
  };

  uint32_t Below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }
  uint32_t Between(uint32_t a, uint32_t b) { return a + Below(b - a + 1); }

  ClusterOptions RandomOptions(uint64_t seed) {
    ClusterOptions options{.seed = seed, .weights = arithmetic_.weights, .isa = arithmetic_.isa};
    options.row_type = Between(0, 1) == 0 ? DType::kF32 : DType::kBF16;
    options.attention_workers = Between(1, 2);
    options.expert_workers = Between(1, 4);
    options.replication = Between(1, std::min(2u, options.expert_workers));
    options.prefill_tokens = Between(0, 3) == 0 ? limits::kPrefillChunkTokens : Between(1, 64);
    options.prefix_cache = Between(0, 3) > 0;
    options.threads = static_cast<int>(Between(1, 3));
    // In most of the pools what runs does not fit at once; the longest alone fits in each.
    if (Between(0, 3) > 0) {
      const ModelConfig& model = FabricModel::Get(arithmetic_.weights).packed()->config();
      constexpr uint32_t kLeast = (kLongest + kKvBlockPositions - 1) / kKvBlockPositions;
      options.kv_bytes = KvCache::BlockBytes(model, options.row_type) * Between(kLeast, 3 * kLeast);
    }
    return options;
  }

  std::vector<Arrival> RandomArrivals(const std::vector<KnownRequest>& victims) {
    std::vector<Arrival> arrivals;
    const uint32_t spread_us = Between(0, 2) * 20'000;
    const auto moment = [&] { return Between(0, spread_us) * 1us; };
    for (const KnownRequest& victim : victims) {
      const uint32_t times = Between(1, 2);  // the second finds itself in the prefix cache
      for (uint32_t i = 0; i < times; ++i) {
        arrivals.push_back({moment(), victim.api, victim.body, &victim, nullptr});
      }
    }
    const uint32_t noise = Between(3, 12);
    for (uint32_t i = 0; i < noise; ++i) {
      arrivals.push_back({moment(), Api::kCompletion, Noise(), nullptr, nullptr});
    }
    std::ranges::shuffle(arrivals, random_);
    std::ranges::stable_sort(arrivals, {}, &Arrival::at);
    return arrivals;
  }

  // Before, beside and after the victims, in rank too.
  std::string Noise() {
    const uint32_t shared = Between(0, 1) * Between(1, 48);
    return Json({{"prompt", MakePrompt(shared, Between(1, 24), Between(5, 500))},
                 {"max_tokens", Between(1, 24)},
                 {"ignore_eos", true},
                 {"temperature", Between(0, 1)},
                 {"seed", Below(1000)},
                 {"priority", static_cast<int>(Between(0, 2)) - 1},
                 {"stream", Between(0, 1) == 1}})
        .dump();
  }

  // Runs until `done`, looking at the workers as it goes. A decode step takes a token of every
  // sequence that decodes: where there are several, they are a batch.
  bool Watch(ClusterWorld& world, const std::function<bool()>& done, Duration limit,
             Totals& totals) {
    const auto look = [&] {
      for (uint32_t i = 0; i < options_.attention_workers; ++i) {
        size_t decoding = 0;
        for (const auto& [rank, sequence] : world.attention(i).engine().scheduler().sequences()) {
          decoding += sequence->decoding();
          totals.part_prompts +=
              sequence->computed > 0 && sequence->computed < sequence->length() - 1;
        }
        totals.batches += decoding > 1;
        totals.largest = std::max(totals.largest, decoding);
      }
      return done();
    };
    return world.RunUntil(look, limit, 100us);
  }

  std::mt19937_64 random_;
  const Arithmetic arithmetic_;
  const ClusterOptions options_;
};

TEST(MixesTest, D5_AnAnswerIsTheSameInEveryMix) {
  OpenLogSink({.least = LogLevel::kError});
  const uint64_t one = FromEnvironment("BOTTEGA_FABRIC_SEED", 0);
  const uint64_t first = one > 0 ? one : 1;
  const uint64_t last = one > 0 ? one : FromEnvironment("BOTTEGA_FABRIC_SEEDS", 50);
  Mix::Totals sum;
  for (uint64_t seed = first; seed <= last; ++seed) {
    Mix mix(seed);
    SCOPED_TRACE(fmt::format("BOTTEGA_FABRIC_SEED={}: {}", seed, mix.Describe()));
    mix.Run(sum);
  }
  std::printf(
      "%lu answers, %lu mixes with rows of f32, %lu of bf16; %lu preemptions, %lu tokens were "
      "cached; at %lu moments a batch, of at most "
      "%zu sequences; at %lu a part of a prompt\n",
      sum.answers, sum.row_types[DType::kF32], sum.row_types[DType::kBF16], sum.preemptions,
      sum.cached_tokens, sum.batches, sum.largest, sum.part_prompts);
  if (one > 0) return;
  // They were mixed, or it proves nothing.
  EXPECT_EQ(sum.mixes.size(), std::min<size_t>(last, EveryArithmetic().size()));
  for (DType row_type : {DType::kF32, DType::kBF16}) {
    EXPECT_GT(sum.row_types[row_type], last / 5) << Name(row_type);
  }
  EXPECT_GT(sum.preemptions, last);
  EXPECT_GT(sum.cached_tokens, 50 * last);
  EXPECT_GT(sum.batches, 10 * last);
  EXPECT_GT(sum.largest, 4u);
  EXPECT_GT(sum.part_prompts, last);
}

}  // namespace
}  // namespace bottega::fabric
