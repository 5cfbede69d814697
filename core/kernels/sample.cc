#include "core/kernels/sample.h"

#include <algorithm>
#include <limits>

#include "core/base/check.h"
#include "core/base/reason.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/threads.h"
#include "core/kernels/elementary.h"

namespace bottega {
namespace {

constexpr float kGreedyBelow = 1e-5f;
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

// The ids of a row in their total order (logit descending, id ascending, -inf left out), sorted
// only as far as asked: 64 ranks by one scan, then more by partial sorts. e of each rank comes with
// it.
class Ranking {
 public:
  Ranking(const Cpu& cpu, absl::Span<const float> logits, std::vector<int32_t>& ids,
          std::vector<float>& terms)
      : cpu_(cpu), logits_(logits), ids_(ids), terms_(terms) {}

  // Exactly so many at first: a scan that holds few is quick, and a greedy choice needs no more.
  void SortFirst(int64_t count) { Sort(count); }
  // False if there are fewer than rank + 1 candidates.
  bool Has(int64_t rank) {
    if (rank < sorted_) return true;
    if (whole_) return false;
    Sort(rank < kScanned ? kScanned : rank < 1024 ? 1024 : rank < 16384 ? 16384 : Size());
    return rank < sorted_;
  }
  // Ranks 0..count-1, or as many as there are; returns how many.
  int64_t SortAtLeast(int64_t count) {
    if (count > sorted_ && !whole_) Sort(std::max(count, kScanned));
    return std::min(count, sorted_);
  }
  int32_t Id(int64_t rank) const { return ids_[rank]; }
  float Logit(int64_t rank) const { return logits_[ids_[rank]]; }

  // Exp((logit - shift) * factor) of the ranks [0, count), and their sum.
  double ComputeTerms(int64_t count, float shift, float factor) {
    for (int64_t i = 0; i < count; ++i) terms_[i] = Logit(i);
    return cpu_.primitives->exp_sum({.x = terms_.data(),
                                     .count = count,
                                     .shift = shift,
                                     .factor = factor,
                                     .terms = terms_.data()});
  }
  int64_t sorted() const { return sorted_; }
  float Term(int64_t rank) const { return terms_[rank]; }

 private:
  static constexpr int64_t kScanned = 64;

  int64_t Size() const { return static_cast<int64_t>(logits_.size()); }

  void Sort(int64_t count) {
    count = std::min(count, Size());
    sorted_ = count <= kScanned ? Scan(count) : PartialSort(count);
    whole_ = sorted_ < count || count == Size();
  }

  // Keeps the best `count` in a sorted list; a later equal logit goes behind.
  int64_t Scan(int64_t count) {
    int64_t held = 0;
    float worst = kMinusInf;  // of a full list
    for (int32_t id = 0; id < Size(); ++id) {
      const float logit = logits_[id];
      if (!(logit > worst)) continue;
      int64_t at = held < count ? held++ : count - 1;
      for (; at > 0 && logit > logits_[ids_[at - 1]]; --at) ids_[at] = ids_[at - 1];
      ids_[at] = id;
      if (held == count) worst = logits_[ids_[count - 1]];
    }
    return held;
  }

  int64_t PartialSort(int64_t count) {
    int64_t candidates = 0;
    for (int32_t id = 0; id < Size(); ++id) {
      if (logits_[id] > kMinusInf) ids_[candidates++] = id;
    }
    count = std::min(count, candidates);
    const auto before = [this](int32_t a, int32_t b) {
      return logits_[a] > logits_[b] || (logits_[a] == logits_[b] && a < b);
    };
    if (count < candidates) {
      std::nth_element(ids_.begin(), ids_.begin() + count, ids_.begin() + candidates, before);
    }
    std::sort(ids_.begin(), ids_.begin() + count, before);
    return count;
  }

  const Cpu& cpu_;
  absl::Span<const float> logits_;
  std::vector<int32_t>& ids_;
  std::vector<float>& terms_;
  int64_t sorted_ = 0;
  bool whole_ = false;  // no candidate is left unsorted
};

// The rank to take; sample.h has the rules.
int64_t ChooseRank(const Cpu& cpu, const SampleRow& row, absl::Span<const float> logits, float max,
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

  const auto available = [&](int64_t rank) {
    if (rank < computed) return true;
    if (keeps_k || !ranking.Has(rank)) return false;
    computed = ranking.sorted();
    ranking.ComputeTerms(computed, max, factor);
    return true;
  };
  double target = u * total;
  int64_t end = std::numeric_limits<int64_t>::max();
  if (cuts) {
    const double enough = static_cast<double>(params.top_p) * total;
    double running = 0;
    for (end = 0; available(end);) {
      if (ranking.Term(end) < params.min_p) break;
      running += static_cast<double>(ranking.Term(end));
      ++end;
      if (params.top_p < 1.0f && running >= enough) break;
    }
    target = u * running;
  }
  double running = 0;
  for (int64_t rank = 0; rank < end && available(rank); ++rank) {
    running += static_cast<double>(ranking.Term(rank));
    if (running > target) return rank;
  }
  return 0;
}

absl::Status SampleOne(const Cpu& cpu, SampleRow& row, int64_t vocabulary,
                       std::vector<int32_t>& ids, std::vector<float>& terms) {
  const absl::Span<const float> logits(row.logits, vocabulary);
  const RowMax max = cpu.primitives->row_max(logits.data(), vocabulary);
  if (max.bad) return MakeError(Reason::kInternalError, "the logits hold a NaN or an infinity");
  if (max.max == kMinusInf) return MakeError(Reason::kInternalError, "no token is allowed");
  const double log_total = Log(cpu.primitives->exp_sum({.x = logits.data(),
                                                        .count = vocabulary,
                                                        .shift = max.max,
                                                        .factor = 1.0f,
                                                        .terms = nullptr}));

  Ranking ranking(cpu, logits, ids, terms);
  const auto with_logprob = [&](int64_t rank) -> TokenLogprob {
    const double below_max =
        static_cast<double>(ranking.Logit(rank)) - static_cast<double>(max.max);
    return {ranking.Id(rank), static_cast<float>(below_max - log_total)};
  };
  const bool greedy = row.params.temperature < kGreedyBelow;
  if (greedy) ranking.SortFirst(std::max<int64_t>(1, static_cast<int64_t>(row.top.size())));
  CHECK(ranking.Has(0));
  row.chosen = with_logprob(greedy ? 0 : ChooseRank(cpu, row, logits, max.max, ranking));
  const int64_t listed = ranking.SortAtLeast(static_cast<int64_t>(row.top.size()));
  for (int64_t rank = 0; rank < listed; ++rank) row.top[rank] = with_logprob(rank);
  // Fewer tokens than asked for: the rest of the list names nothing.
  for (size_t rank = listed; rank < row.top.size(); ++rank) row.top[rank] = {-1, kMinusInf};
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
      candidates_(threads, std::vector<int32_t>(vocabulary)),
      terms_(threads, std::vector<float>(vocabulary)) {
  CHECK_GE(vocabulary, 1);
}

void Sampler::Sample(const Cpu& cpu, absl::Span<SampleRow> rows) {
  CHECK_LE(static_cast<size_t>(cpu.pool->threads()), candidates_.size());
  cpu.pool->ParallelFor(static_cast<int64_t>(rows.size()), [&](int64_t i, int thread) {
    rows[i].status = SampleOne(cpu, rows[i], vocabulary_, candidates_[thread], terms_[thread]);
  });
}

}  // namespace bottega
