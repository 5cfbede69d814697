#include "core/kernels/sample.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/reason.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/threads.h"
#include "core/kernels/elementary.h"

namespace bottega {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

// Ascending in the order of ranks, but for ids: larger logits first, -0 and +0 alike.
uint32_t SortKey(float logit) {
  const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);
  return bits >> 31 ? bits : ~(bits | 0x8000'0000u);
}

constexpr int kRadixBits = 11;  // three passes; counters in L1
constexpr uint32_t kRadixes = 1u << kRadixBits;

// Stable, by key.
void RadixSort(std::vector<RankedToken>& tokens, std::vector<RankedToken>& spare, int64_t count) {
  for (int shift = 0; shift < 32; shift += kRadixBits) {
    std::array<int32_t, kRadixes> at{};
    for (int64_t i = 0; i < count; ++i) ++at[tokens[i].key >> shift & (kRadixes - 1)];
    int32_t before = 0;
    for (int32_t& slot : at) before += std::exchange(slot, before);
    for (int64_t i = 0; i < count; ++i) {
      spare[at[tokens[i].key >> shift & (kRadixes - 1)]++] = tokens[i];
    }
    tokens.swap(spare);
  }
}

// The ids of a row in their total order (logit descending, id ascending, -inf left out), sorted
// only as far as asked: 64 ranks by one scan; more by their leading bits and a radix sort of what
// is above the last of them. A comparing sort of 131,084 flat logits took 5 ms.
// e of each rank comes with it.
class Ranking {
 public:
  Ranking(const Cpu& cpu, absl::Span<const float> logits, SampleScratch& scratch)
      : cpu_(cpu), logits_(logits), s_(scratch) {}

  // Exactly so many at first: a scan that holds few is quick, and a greedy choice needs no more.
  void SortFirst(int64_t count) { Sort(count); }
  // False if there are fewer than rank + 1 candidates. `likely`: how many ranks may be asked for.
  bool Has(int64_t rank, int64_t likely = 0) {
    if (rank < sorted_) return true;
    if (whole_) return false;
    Sort(std::max(likely, rank < kScanned ? kScanned : rank < 1024 ? 1024 : Size()));
    return rank < sorted_;
  }
  // Ranks 0..count-1, or as many as there are; returns how many.
  int64_t SortAtLeast(int64_t count) {
    if (count > sorted_ && !whole_) Sort(std::max(count, kScanned));
    return std::min(count, sorted_);
  }
  int32_t Id(int64_t rank) const { return s_.tokens[rank].id; }
  float Logit(int64_t rank) const { return logits_[Id(rank)]; }

  // Exp((logit - shift) * factor) of the ranks [0, count), and their sum.
  double ComputeTerms(int64_t count, float shift, float factor) {
    for (int64_t i = 0; i < count; ++i) s_.terms[i] = Logit(i);
    return cpu_.primitives->exp_sum({.x = s_.terms.data(),
                                     .count = count,
                                     .shift = shift,
                                     .factor = factor,
                                     .terms = s_.terms.data()});
  }
  int64_t sorted() const { return sorted_; }
  float Term(int64_t rank) const { return s_.terms[rank]; }

 private:
  static constexpr int64_t kScanned = 64;

  int64_t Size() const { return static_cast<int64_t>(logits_.size()); }

  void Sort(int64_t count) {
    count = std::min(count, Size());
    if (count <= kScanned) {
      sorted_ = Scan(count);
      whole_ = sorted_ < count || count == Size();
    } else {
      SortAbove(count);
    }
  }

  // Keeps the best `count` in a sorted list; a later equal logit goes behind.
  int64_t Scan(int64_t count) {
    std::vector<RankedToken>& tokens = s_.tokens;
    int64_t held = 0;
    float worst = kMinusInf;  // of a full list
    for (int32_t id = 0; id < Size(); ++id) {
      const float logit = logits_[id];
      if (!(logit > worst)) continue;
      int64_t at = held < count ? held++ : count - 1;
      for (; at > 0 && logit > Logit(at - 1); --at) tokens[at] = tokens[at - 1];
      tokens[at].id = id;
      if (held == count) worst = Logit(count - 1);
    }
    return held;
  }

  // At least `count`: with them all that share the leading bits of the last one.
  void SortAbove(int64_t count) {
    constexpr int kLeading = 32 - kRadixBits;
    std::array<int32_t, kRadixes> counts{};
    for (float logit : logits_) ++counts[SortKey(logit) >> kLeading];
    // Those of -inf share theirs with nothing but NaN, which is not here.
    counts[SortKey(kMinusInf) >> kLeading] = 0;
    const int64_t candidates = std::accumulate(counts.begin(), counts.end(), int64_t{0});
    int64_t above = 0;
    uint32_t end = 0;
    while (end < kRadixes && above < count) above += counts[end++];
    int64_t taken = 0;
    for (int32_t id = 0; id < Size(); ++id) {
      const uint32_t key = SortKey(logits_[id]);
      if (key >> kLeading < end && logits_[id] != kMinusInf) s_.tokens[taken++] = {key, id};
    }
    RadixSort(s_.tokens, s_.spare, taken);
    sorted_ = taken;
    whole_ = taken == candidates;
  }

  const Cpu& cpu_;
  absl::Span<const float> logits_;
  SampleScratch& s_;
  int64_t sorted_ = 0;
  bool whole_ = false;  // no candidate is left unsorted
};

// The rank to take of a row that is drawn from; sample.h has the rules.
int64_t DrawRank(const Cpu& cpu, const SampleRow& row, absl::Span<const float> logits, float max,
                 Ranking& ranking) {
  const SamplingParams& params = row.params;
  const float factor = 1.0f / params.temperature;
  const bool keeps_k = params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size());
  int64_t computed = 0;  // ranks whose terms are known
  double total;
  if (keeps_k) {
    computed = ranking.SortAtLeast(params.top_k);
    total = ranking.ComputeTerms(computed, max, factor);
  } else {
    total = cpu.primitives->exp_sum({.x = logits.data(),
                                     .count = static_cast<int64_t>(logits.size()),
                                     .shift = max,
                                     .factor = factor,
                                     .terms = nullptr});
  }
  const bool cuts = params.top_p < 1.0f || params.min_p > 0.0f;
  const double u = UniformAt(params.seed, params.choice, row.position);

  // No term is larger than the one before: so many ranks are needed at least until they add up.
  const auto available = [&](int64_t rank, double missing) {
    if (rank < computed) return true;
    const double largest = rank > 0 ? std::max(ranking.Term(rank - 1), 1e-6f) : 1;
    if (keeps_k || !ranking.Has(rank, rank + static_cast<int64_t>(missing / largest))) return false;
    computed = ranking.sorted();
    ranking.ComputeTerms(computed, max, factor);
    return true;
  };
  double target = u * total;
  int64_t end = std::numeric_limits<int64_t>::max();
  if (cuts) {
    const double enough = static_cast<double>(params.top_p) * total;
    double running = 0;
    for (end = 0; available(end, enough - running);) {
      if (ranking.Term(end) < params.min_p) break;
      running += static_cast<double>(ranking.Term(end));
      ++end;
      if (params.top_p < 1.0f && running >= enough) break;
    }
    target = u * running;
  }
  double running = 0;
  for (int64_t rank = 0; rank < end && available(rank, target - running); ++rank) {
    running += static_cast<double>(ranking.Term(rank));
    if (running > target) return rank;
  }
  return 0;
}

// The id to take, of a ranking of `logits`; `listed`: how many of its ranks will be asked for.
int32_t Choose(const Cpu& cpu, const SampleRow& row, absl::Span<const float> logits, float max,
               size_t listed, Ranking& ranking) {
  const bool greedy = row.params.temperature < kGreedyBelow;
  if (greedy) ranking.SortFirst(std::max<int64_t>(1, static_cast<int64_t>(listed)));
  CHECK(ranking.Has(0));
  return ranking.Id(greedy ? 0 : DrawRank(cpu, row, logits, max, ranking));
}

float Finite(float x) {
  constexpr float kMost = std::numeric_limits<float>::max();
  return std::clamp(x, -kMost, kMost);
}

void Penalise(const LogitEdits& edits, const TokenCount& seen, float& x) {
  if (x == kMinusInf) return;
  x = Finite(x > 0 ? x / edits.repetition : x * edits.repetition);
  x = Finite(x - edits.frequency * static_cast<float>(seen.generated));
  if (seen.generated > 0) x = Finite(x - edits.presence);
}

void Edit(absl::Span<const float> raw, const LogitEdits& edits, std::vector<float>& edited) {
  if (edits.allowed.empty()) {
    std::copy(raw.begin(), raw.end(), edited.begin());
  } else {
    std::fill(edited.begin(), edited.end(), kMinusInf);
    for (int32_t id : edits.allowed) edited[id] = raw[id];
  }
  for (int32_t id : edits.forbidden) edited[id] = kMinusInf;
  for (const LogitBias& bias : edits.bias) {
    float& x = edited[bias.token];
    if (x != kMinusInf) x = Finite(x + bias.bias);
  }
  for (const TokenCount& seen : edits.seen) Penalise(edits, seen, edited[seen.token]);
}

absl::Status SampleOne(const Cpu& cpu, SampleRow& row, int64_t vocabulary, SampleScratch& scratch) {
  const absl::Span<const float> logits(row.logits, vocabulary);
  const RowMax max = cpu.primitives->row_max(logits.data(), vocabulary);
  if (max.bad) return MakeError(Reason::kInternalError, "the logits hold a NaN or an infinity");
  if (max.max == kMinusInf) return MakeError(Reason::kInternalError, "no token is allowed");
  const double log_total = Log(cpu.primitives->exp_sum({.x = logits.data(),
                                                        .count = vocabulary,
                                                        .shift = max.max,
                                                        .factor = 1.0f,
                                                        .terms = nullptr}));

  const auto with_logprob = [&](int32_t id) -> TokenLogprob {
    const double below_max = static_cast<double>(logits[id]) - static_cast<double>(max.max);
    return {id, static_cast<float>(below_max - log_total)};
  };
  const auto list_top = [&](Ranking& ranking) {
    const int64_t listed = ranking.SortAtLeast(static_cast<int64_t>(row.top.size()));
    for (int64_t rank = 0; rank < listed; ++rank) row.top[rank] = with_logprob(ranking.Id(rank));
    // Fewer tokens than asked for: the rest of the list names nothing.
    for (size_t rank = listed; rank < row.top.size(); ++rank) row.top[rank] = {-1, kMinusInf};
  };
  if (row.edits.empty()) {
    Ranking ranking(cpu, logits, scratch);
    row.chosen = with_logprob(Choose(cpu, row, logits, max.max, row.top.size(), ranking));
    list_top(ranking);
    return absl::OkStatus();
  }

  // Listed first: both rankings use the scratch.
  if (!row.top.empty()) {
    Ranking raw(cpu, logits, scratch);
    raw.SortFirst(static_cast<int64_t>(row.top.size()));
    list_top(raw);
  }
  Edit(logits, row.edits, scratch.edited);
  const float edited_max = cpu.primitives->row_max(scratch.edited.data(), vocabulary).max;
  if (edited_max == kMinusInf) {
    return MakeError(Reason::kInvalidValue,
                     "`allowed_token_ids`, `bad_words` and `min_tokens` leave no token to come "
                     "next");
  }
  Ranking ranking(cpu, scratch.edited, scratch);
  row.chosen = with_logprob(Choose(cpu, row, scratch.edited, edited_max, 1, ranking));
  return absl::OkStatus();
}

}  // namespace

double UniformAt(uint64_t seed, uint32_t choice, int64_t position) {
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  uint32_t x[4] = {static_cast<uint32_t>(position),
                   static_cast<uint32_t>(static_cast<uint64_t>(position) >> 32), choice, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * x[0], b = uint64_t{0xCD9E8D57u} * x[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
        static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
    std::copy(next, next + 4, x);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  const uint64_t bits = (uint64_t{x[1]} << 32 | x[0]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

Sampler::Sampler(int64_t vocabulary, int threads)
    : vocabulary_(vocabulary),
      scratch_(threads, {.tokens = std::vector<RankedToken>(vocabulary),
                         .spare = std::vector<RankedToken>(vocabulary),
                         .terms = std::vector<float>(vocabulary),
                         .edited = std::vector<float>(vocabulary)}) {
  CHECK_GE(vocabulary, 1);
}

void Sampler::Sample(const Cpu& cpu, absl::Span<SampleRow> rows) {
  CHECK_LE(static_cast<size_t>(cpu.pool->threads()), scratch_.size());
  cpu.pool->ParallelFor(static_cast<int64_t>(rows.size()), [&](int64_t i, int thread) {
    rows[i].status = SampleOne(cpu, rows[i], vocabulary_, scratch_[thread]);
  });
}

}  // namespace bottega
