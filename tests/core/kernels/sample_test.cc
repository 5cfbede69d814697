#include "core/kernels/sample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/base/reason.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/elementary.h"
#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Sampled {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;
  absl::Status status;
};

Sampled Sample(const Cpu& cpu, const std::vector<float>& logits, const SamplingParams& params,
               int64_t position, int top = 0, const LogitEdits& edits = {}) {
  Sampler sampler(static_cast<int64_t>(logits.size()), cpu.pool->threads());
  Sampled out{{}, std::vector<TokenLogprob>(top), {}};
  SampleRow row = {.logits = logits.data(),
                   .edits = edits,
                   .params = params,
                   .position = position,
                   .top = absl::MakeSpan(out.top),
                   .chosen = {},
                   .status = {}};
  sampler.Sample(cpu, {&row, 1});
  out.chosen = row.chosen;
  out.status = row.status;
  return out;
}

// sample.h's sum: runs of 4096, 16 lanes, the tree, f64.
double ContractSum(const std::vector<float>& terms) {
  double total = 0;
  for (size_t run = 0; run < terms.size(); run += 4096) {
    float lanes[16] = {};
    for (size_t i = run; i < std::min(run + 4096, terms.size()); ++i)
      lanes[(i - run) % 16] += terms[i];
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
    }
    total += static_cast<double>(lanes[0]);
  }
  return total;
}

// The logit of one id after the edits.
float EditedLogit(float x, int32_t id, const LogitEdits& edits) {
  constexpr double kMost = std::numeric_limits<float>::max();
  const auto finite = [&](double y) { return static_cast<float>(std::clamp(y, -kMost, kMost)); };
  const auto in = [id](absl::Span<const int32_t> ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (in(edits.forbidden) || !(edits.allowed.empty() || in(edits.allowed)) || x == -kInf) {
    return -kInf;
  }
  for (const LogitBias& b : edits.bias) {
    if (b.token == id) x = finite(double{x} + double{b.bias});
  }
  for (const TokenCount& seen : edits.seen) {
    if (seen.token != id) continue;
    // A double holds the quotient and the product well enough to be rounded to f32 once.
    x = finite(x > 0 ? double{x} / edits.repetition : double{x} * edits.repetition);
    const float frequent = static_cast<float>(double{edits.frequency} * seen.generated);
    x = finite(double{x} - double{frequent});
    if (seen.generated > 0) x = finite(double{x} - double{edits.presence});
  }
  return x;
}

// sample.h, literally, with everything sorted and nothing clever.
TokenLogprob Definition(const std::vector<float>& raw, const SamplingParams& params,
                        int64_t position, const LogitEdits& edits = {}) {
  std::vector<float> logits;
  for (size_t i = 0; i < raw.size(); ++i) {
    logits.push_back(EditedLogit(raw[i], static_cast<int32_t>(i), edits));
  }
  const float max = *std::max_element(logits.begin(), logits.end());
  const auto terms_of = [&](const std::vector<float>& values, float factor) {
    std::vector<float> terms;
    for (float x : values) terms.push_back(Exp((x - max) * factor));
    return terms;
  };
  std::vector<int32_t> ids;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -kInf) ids.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  const float raw_max = *std::max_element(raw.begin(), raw.end());
  std::vector<float> raw_terms;
  for (float x : raw) raw_terms.push_back(Exp(x - raw_max));
  const double log_total = Log(ContractSum(raw_terms));
  const auto answer = [&](int32_t id) -> TokenLogprob {
    return {id, static_cast<float>((double{raw[id]} - double{raw_max}) - log_total)};
  };
  if (params.temperature < 1e-5f) return answer(ids[0]);

  const float factor = 1.0f / params.temperature;
  const bool keeps_k = params.top_k > 0 && params.top_k < static_cast<int>(logits.size());
  if (keeps_k && params.top_k < static_cast<int>(ids.size())) ids.resize(params.top_k);
  std::vector<float> ranked;
  for (int32_t id : ids) ranked.push_back(logits[id]);
  const std::vector<float> e = terms_of(ranked, factor);
  const double z = ContractSum(keeps_k ? e : terms_of(logits, factor));
  size_t end = e.size();
  double s = z;
  if (params.top_p < 1 || params.min_p > 0) {
    double running = 0;
    size_t kept = 0;
    while (kept < e.size() && !(e[kept] < params.min_p)) {
      running += e[kept++];
      if (params.top_p < 1 && running >= double{params.top_p} * z) break;
    }
    end = kept;
    s = running;
  }
  double running = 0;
  for (size_t i = 0; i < end; ++i) {
    running += e[i];
    if (running > UniformAt(params.seed, params.choice, position) * s) return answer(ids[i]);
  }
  return answer(ids[0]);
}

std::vector<SamplingParams> ParamsToTry() {
  std::vector<SamplingParams> all;
  for (float temperature : {0.0f, 0.6f, 1.0f, 8.0f}) {
    for (int top_k : {0, 1, 20, 1500}) {
      for (float top_p : {1.0f, 0.95f, 0.3f}) {
        for (float min_p : {0.0f, 0.1f}) {
          all.push_back({.temperature = temperature,
                         .top_k = top_k,
                         .top_p = top_p,
                         .min_p = min_p,
                         .seed = 42,
                         .choice = 1});
        }
      }
    }
  }
  return all;
}

TEST(Sample, EqualsTheDefinitionOnEveryCpu) {
  for (const int64_t vocabulary : {1, 5, 63, 5000, 20011}) {
    // Coarse values make ties; a few forbidden tokens.
    auto logits = RandomFloats(vocabulary, 3, 2.0f);
    for (float& x : logits) x = std::round(x * 64) / 64;
    for (int64_t i = 2; i < vocabulary; i += 7) logits[i] = -kInf;
    int64_t position = 100;
    for (const SamplingParams& params : ParamsToTry()) {
      ++position;
      const TokenLogprob expected = Definition(logits, params, position);
      for (const NamedCpu& named : EveryCpu()) {
        if (vocabulary > 5000 && named.cpu.isa == Isa::kScalar && position % 8) continue;
        const Sampled got = Sample(named.cpu, logits, params, position);
        ASSERT_TRUE(got.status.ok());
        ASSERT_EQ(got.chosen.token, expected.token)
            << named.name << " T " << params.temperature << " k " << params.top_k << " p "
            << params.top_p << " vocabulary " << vocabulary;
        ASSERT_EQ(std::memcmp(&got.chosen.logprob, &expected.logprob, 4), 0) << named.name;
      }
    }
  }
}

// Edits of a row of `vocabulary` logits, and what they refer to.
struct EditsToTry {
  std::vector<int32_t> allowed = {}, forbidden = {};
  std::vector<LogitBias> bias = {};
  std::vector<TokenCount> seen = {};
  float repetition = 1, frequency = 0, presence = 0;

  LogitEdits edits() const {
    return {.allowed = allowed,
            .forbidden = forbidden,
            .bias = bias,
            .seen = seen,
            .repetition = repetition,
            .frequency = frequency,
            .presence = presence};
  }
};

std::vector<EditsToTry> SomeEdits(int32_t vocabulary) {
  EditsToTry allowed, forbidden, bias, penalties, rewards;
  for (int32_t id = 0; id < vocabulary; ++id) {
    if (id % 3 == 1) allowed.allowed.push_back(id);
    if (id % 5 == 0) forbidden.forbidden.push_back(id);
    if (id % 4 == 3) bias.bias.push_back({id, static_cast<float>(id % 13) * 0.3f - 2.1f});
    if (id % 2 == 0) penalties.seen.push_back({id, id % 6});
  }
  rewards.seen = penalties.seen;
  penalties.repetition = 1.3f, penalties.frequency = 0.7f, penalties.presence = 1.1f;
  rewards.repetition = 0.9f, rewards.frequency = -0.3f, rewards.presence = -2;
  EditsToTry all = penalties;
  all.allowed = allowed.allowed, all.forbidden = forbidden.forbidden, all.bias = bias.bias;
  return {allowed, forbidden, bias, penalties, rewards, all};
}

TEST(Sample, EditsAreTheDefinitionOnEveryCpu) {
  for (const int32_t vocabulary : {63, 5000}) {
    const auto logits = RandomFloats(vocabulary, 8, 2.0f);
    int64_t position = 0;
    for (const EditsToTry& edits : SomeEdits(vocabulary)) {
      for (const SamplingParams& params : ParamsToTry()) {
        if (++position % 4 != 0 && vocabulary > 63) continue;
        const TokenLogprob expected = Definition(logits, params, position, edits.edits());
        const Sampled plain = Sample(ScalarCpu(), logits, params, position, 20);
        for (const NamedCpu& named : EveryCpu()) {
          const Sampled got = Sample(named.cpu, logits, params, position, 20, edits.edits());
          ASSERT_TRUE(got.status.ok()) << got.status;
          ASSERT_EQ(got.chosen.token, expected.token) << named.name << " at " << position;
          ASSERT_EQ(std::memcmp(&got.chosen.logprob, &expected.logprob, 4), 0) << named.name;
          // Of the raw logits: as if there were no edits.
          for (size_t i = 0; i < got.top.size(); ++i) {
            ASSERT_EQ(got.top[i].token, plain.top[i].token);
            ASSERT_EQ(std::memcmp(&got.top[i].logprob, &plain.top[i].logprob, 4), 0);
          }
        }
      }
    }
  }
}

TEST(Sample, EditsOfAHandfulOfLogits) {
  const std::vector<float> logits = {1, 2, -1, 0.5f};
  const auto greedy = [&](const EditsToTry& edits) {
    return Sample(BestCpu(), logits, {.temperature = 0}, 0, 0, edits.edits()).chosen.token;
  };
  EXPECT_EQ(greedy({}), 1);
  EXPECT_EQ(greedy({.forbidden = {1}}), 0);
  EXPECT_EQ(greedy({.allowed = {2, 3}}), 3);
  EXPECT_EQ(greedy({.bias = {{2, 3.5f}}}), 2);
  // 2 / 4 and -1 * 0.25: seen in the prompt is enough, and the sign decides how.
  EXPECT_EQ(greedy({.seen = {{1, 0}}, .repetition = 4}), 0);
  EXPECT_EQ(greedy({.allowed = {2, 3}, .seen = {{2, 0}, {3, 0}}, .repetition = 0.01f}), 3);
  EXPECT_EQ(greedy({.allowed = {2, 3}, .seen = {{2, 0}}, .repetition = 10}), 3);
  // Seen in the prompt only is not seen for these.
  EXPECT_EQ(greedy({.seen = {{1, 0}}, .frequency = 2, .presence = 2}), 1);
  EXPECT_EQ(greedy({.seen = {{1, 1}}, .presence = 1.5f}), 0);
  EXPECT_EQ(greedy({.seen = {{1, 3}}, .presence = 0.5f}), 1);
  EXPECT_EQ(greedy({.seen = {{1, 3}}, .frequency = 0.5f}), 0);
}

// A penalty that divides by next to nothing makes no infinity, and a bias wakes no forbidden token.
TEST(Sample, EditsOfExtremesStayFinite) {
  const float tiny = std::numeric_limits<float>::min();
  const std::vector<float> logits = {1e20f, -1e20f, 3, -kInf};
  const EditsToTry edits{.forbidden = {0},
                         .bias = {{0, 100}, {3, 100}},
                         .seen = {{0, 0}, {1, 0}, {2, 0}, {3, 5}},
                         .repetition = tiny,
                         .frequency = -2,
                         .presence = -2};
  for (const NamedCpu& named : EveryCpu()) {
    for (float temperature : {0.0f, 1.0f}) {
      const Sampled got =
          Sample(named.cpu, logits, {.temperature = temperature}, 7, 0, edits.edits());
      ASSERT_TRUE(got.status.ok()) << got.status;
      EXPECT_EQ(got.chosen.token, 2);
    }
  }
}

TEST(Sample, EditsThatLeaveNothingAreTheRequestsError) {
  const std::vector<float> logits = {1, 2, -kInf};
  const EditsToTry none{.forbidden = {0, 1}};
  EXPECT_EQ(ReasonOf(Sample(BestCpu(), logits, {}, 0, 1, none.edits()).status),
            Reason::kInvalidValue);
  const EditsToTry impossible{.allowed = {2}};
  EXPECT_EQ(ReasonOf(Sample(BestCpu(), logits, {}, 0, 0, impossible.edits()).status),
            Reason::kInvalidValue);
  // The row's own fault goes first.
  EXPECT_EQ(ReasonOf(Sample(BestCpu(), {-kInf, -kInf}, {}, 0, 0, none.edits()).status),
            Reason::kInternalError);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ReasonOf(Sample(BestCpu(), {nan, 1, 2}, {}, 0, 0, none.edits()).status),
            Reason::kInternalError);
}

// Ties across every boundary of the partial sorts (64, 1024 ranks).
TEST(Sample, TiesAreRankedById) {
  for (const int64_t vocabulary : {100, 1500, 17000}) {
    const std::vector<float> logits(vocabulary, 0.25f);
    for (int64_t position = 0; position < 200; ++position) {
      const double u = UniformAt(9, 0, position);
      const Sampled got = Sample(BestCpu(), logits, {.seed = 9}, position);
      EXPECT_EQ(got.chosen.token, static_cast<int32_t>(u * vocabulary));
      if (vocabulary == 17000 && position == 10) break;
    }
  }
}

TEST(ExpSum, IsTheFixedTreeOnEveryCpu) {
  std::vector<int64_t> counts = {4095, 4096, 4097, 9999};
  for (int64_t count = 1; count < 200; ++count) counts.push_back(count);
  for (const int64_t count : counts) {
    const auto x = RandomFloats(count, 30 + count, 3.0f);
    std::vector<float> terms;
    for (float value : x) terms.push_back(Exp((value - 2.5f) * 0.7f));
    const auto sum = OnEveryCpu([&](const Cpu& cpu) {
      return std::vector<double>{cpu.primitives->exp_sum(
          {.x = x.data(), .count = count, .shift = 2.5f, .factor = 0.7f, .terms = nullptr})};
    });
    EXPECT_EQ(sum[0], ContractSum(terms)) << count;
  }
}

TEST(Sample, FrequenciesFollowTheDistribution) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f};
  double total = 0;
  for (float x : logits) total += std::exp(double{x});
  std::vector<int> counts(4);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    ++counts[Sample(BestCpu(), logits, {.seed = 7}, i).chosen.token];
  }
  for (int t = 0; t < 4; ++t) {
    const double p = std::exp(double{logits[t]}) / total;
    EXPECT_NEAR(counts[t], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p))) << t;
  }
}

TEST(Sample, LogprobsAreOfTheRawLogitsAndListed) {
  const auto logits = RandomFloats(300, 4);
  double total = 0;
  for (float x : logits) total += std::exp(double{x});
  const Sampled out =
      Sample(BestCpu(), logits, {.temperature = 0.3f, .top_k = 5, .seed = 1}, 9, 20);
  EXPECT_NEAR(out.chosen.logprob, logits[out.chosen.token] - std::log(total), 1e-6);
  for (size_t i = 0; i < out.top.size(); ++i) {
    EXPECT_NEAR(out.top[i].logprob, logits[out.top[i].token] - std::log(total), 1e-6);
    if (i > 0) {
      EXPECT_LE(logits[out.top[i].token], logits[out.top[i - 1].token]);
    }
  }
  const Sampled few = Sample(BestCpu(), {1.0f, -kInf, 3.0f}, {.temperature = 0}, 0, 3);
  EXPECT_EQ(few.top[0].token, 2);
  EXPECT_EQ(few.top[1].token, 0);
  EXPECT_EQ(few.top[2].token, -1);
}

TEST(Sample, GreedyTakesTheLowestIdOfATie) {
  EXPECT_EQ(Sample(BestCpu(), {1, 3, 3, 2}, {.temperature = 0}, 5).chosen.token, 1);
}

TEST(Sample, BadRowsAreAnErrorAndNeverAToken) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const NamedCpu& named : EveryCpu()) {
    for (int at : {0, 15, 16, 36}) {
      for (float poison : {nan, kInf}) {
        auto logits = RandomFloats(37, 5);
        logits[at] = poison;
        EXPECT_FALSE(Sample(named.cpu, logits, {}, 0).status.ok()) << named.name << " " << at;
      }
    }
    EXPECT_FALSE(Sample(named.cpu, std::vector<float>(40, -kInf), {}, 0).status.ok());
  }
}

TEST(Sample, ABatchEqualsItsRows) {
  const int64_t vocabulary = 700;
  std::vector<std::vector<float>> logits;
  std::vector<SampleRow> rows;
  for (int i = 0; i < 12; ++i) logits.push_back(RandomFloats(vocabulary, 20 + i));
  for (int i = 0; i < 12; ++i) {
    rows.push_back({.logits = logits[i].data(),
                    .edits = {},
                    .params = {.temperature = 0.1f * i, .top_p = 0.9f, .seed = 3},
                    .position = i,
                    .top = {},
                    .chosen = {},
                    .status = {}});
  }
  Sampler sampler(vocabulary, BestCpu().pool->threads());
  sampler.Sample(BestCpu(), absl::MakeSpan(rows));
  for (int i = 0; i < 12; ++i) {
    const Sampled alone = Sample(ScalarCpu(), logits[i], rows[i].params, i);
    EXPECT_EQ(rows[i].chosen.token, alone.chosen.token);
    EXPECT_EQ(rows[i].chosen.logprob, alone.chosen.logprob);
  }
}

TEST(UniformAt, IsPhilox4x32WithTenRounds) {
  // The generator's published first block for counter 0 and key 0: 6627e8d5 e169c58d bc57ac4c
  // 9b00dbd8.
  EXPECT_EQ(UniformAt(0, 0, 0), static_cast<double>(0xe169c58d6627e8d5ULL >> 11) * 0x1p-53);
  EXPECT_NE(UniformAt(1, 0, 0), UniformAt(0, 0, 0));
  EXPECT_NE(UniformAt(0, 1, 0), UniformAt(0, 0, 0));
  EXPECT_NE(UniformAt(0, 0, 1), UniformAt(0, 0, 0));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) {
    const double u = UniformAt(5, 0, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

}  // namespace
}  // namespace bottega
