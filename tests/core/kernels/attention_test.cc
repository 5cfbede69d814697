#include "core/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "core/kernels/elementary.h"
#include "tests/core/kernels/every_cpu.h"

namespace bottega {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

// A sequence of `length` tokens whose KV lies in shuffled blocks of a pool filled with 0xFF (NaN).
struct Sequence {
  Sequence(Shape shape, DType dtype, int64_t length, uint32_t seed)
      : shape(shape),
        length(length),
        layout{dtype, shape.kv_heads, shape.head_dim},
        k(RandomFloats(length * shape.kv_heads * shape.head_dim, seed)),
        v(RandomFloats(length * shape.kv_heads * shape.head_dim, seed + 1)),
        q(RandomFloats(length * shape.heads * shape.head_dim, seed + 2)) {
    const int32_t count = static_cast<int32_t>((length + 15) / 16);
    for (int32_t b = 0; b < count; ++b) blocks.push_back((b * 7 + 3) % (count + 4));
    std::sort(blocks.begin(), blocks.end());
    blocks.erase(std::unique(blocks.begin(), blocks.end()), blocks.end());
    for (int32_t b = 0; static_cast<int32_t>(blocks.size()) < count; ++b) {
      if (std::find(blocks.begin(), blocks.end(), b) == blocks.end()) blocks.push_back(b);
    }
    std::reverse(blocks.begin(), blocks.end());
    stride = layout.BlockBytes() + 64;
    pool.assign((count + 5) * stride, std::byte{0xff});
  }

  KvLayer Layer() { return {.base = pool.data(), .block_stride_bytes = stride, .layout = layout}; }

  void Write(const Cpu& cpu, int64_t first, int64_t count) {
    std::vector<KvSlot> slots;
    for (int64_t p = first; p < first + count; ++p) {
      slots.push_back({blocks[p / 16], static_cast<int32_t>(p % 16)});
    }
    const int64_t row = shape.kv_heads * shape.head_dim;
    WriteKv(cpu, {.k = &k[first * row],
                  .v = &v[first * row],
                  .stride = row,
                  .slots = slots,
                  .layer = Layer()});
  }

  std::vector<float> Attend(const Cpu& cpu, int64_t first, int64_t count, int64_t kv_head = 0,
                            int64_t kv_heads = 0) {
    const int64_t row = shape.heads * shape.head_dim;
    std::vector<AttendToken> tokens;
    for (int64_t p = first; p < first + count; ++p) {
      tokens.push_back({static_cast<int32_t>(p), blocks.data()});
    }
    std::vector<float> out(count * row);
    bottega::Attend(cpu, {.q = &q[first * row],
                          .q_stride = row,
                          .heads = shape.heads,
                          .scale = kScale,
                          .tokens = tokens,
                          .first_kv_head = kv_head,
                          .kv_heads = kv_heads,
                          .layer = Layer(),
                          .out = out.data(),
                          .out_stride = row});
    return out;
  }

  static constexpr float kScale = 0.21f;
  Shape shape;
  int64_t length;
  KvLayout layout;
  std::vector<float> k, v, q;
  std::vector<int32_t> blocks;
  size_t stride;
  std::vector<std::byte> pool;
};

float Tree(std::vector<float> lanes, bool max) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) {
      const float a = lanes[i], b = lanes[i + step];
      lanes[i] = max ? (a > b ? a : b) : a + b;
    }
  }
  return lanes[0];
}

// attention.h, literally, for one token and head. k, v: what the cache holds.
std::vector<float> Definition(const Sequence& s, const std::vector<float>& k,
                              const std::vector<float>& v, int64_t position, int64_t head) {
  const int64_t dim = s.shape.head_dim, kv_row = s.shape.kv_heads * dim;
  const int64_t kv_head = head / (s.shape.heads / s.shape.kv_heads);
  const float* q = &s.q[(position * s.shape.heads + head) * dim];
  float m = -std::numeric_limits<float>::infinity(), l = 0;
  std::vector<float> o(dim, 0.0f);
  for (int64_t first = 0; first <= position; first += 16) {
    std::vector<float> score(16, -std::numeric_limits<float>::infinity()), p(16, 0.0f);
    const int64_t visible = std::min<int64_t>(16, position - first + 1);
    for (int64_t j = 0; j < visible; ++j) {
      float acc = 0;
      for (int64_t d = 0; d < dim; ++d) {
        acc = std::fma(q[d], k[(first + j) * kv_row + kv_head * dim + d], acc);
      }
      score[j] = acc * Sequence::kScale;
    }
    const float block_max = Tree(score, true);
    const float next = m > block_max ? m : block_max;
    const float c = Exp(m - next);
    for (int64_t j = 0; j < visible; ++j) p[j] = Exp(score[j] - next);
    l = std::fma(l, c, Tree(p, false));
    for (int64_t d = 0; d < dim; ++d) {
      o[d] = o[d] * c;
      for (int64_t j = 0; j < visible; ++j) {
        o[d] = std::fma(p[j], v[(first + j) * kv_row + kv_head * dim + d], o[d]);
      }
    }
    m = next;
  }
  for (float& value : o) value = value / l;
  return o;
}

std::vector<float> Exact(const Sequence& s, const std::vector<float>& k,
                         const std::vector<float>& v, int64_t position, int64_t head) {
  const int64_t dim = s.shape.head_dim, kv_row = s.shape.kv_heads * dim;
  const int64_t kv_head = head / (s.shape.heads / s.shape.kv_heads);
  const float* q = &s.q[(position * s.shape.heads + head) * dim];
  std::vector<double> weight(position + 1);
  double sum = 0;
  for (int64_t j = 0; j <= position; ++j) {
    double dot = 0;
    for (int64_t d = 0; d < dim; ++d) dot += double{q[d]} * k[j * kv_row + kv_head * dim + d];
    sum += weight[j] = std::exp(dot * Sequence::kScale);
  }
  std::vector<float> o(dim);
  for (int64_t d = 0; d < dim; ++d) {
    double acc = 0;
    for (int64_t j = 0; j <= position; ++j) acc += weight[j] * v[j * kv_row + kv_head * dim + d];
    o[d] = static_cast<float>(acc / sum);
  }
  return o;
}

TEST(Attention, EqualsTheDefinitionOnEveryCpu) {
  for (DType dtype : kEveryDType) {
    for (const Shape shape : {Shape{5, 1, 48}, {4, 4, 8}, {16, 2, 40}, {6, 2, 128}, {9, 1, 24}}) {
      SCOPED_TRACE(testing::Message() << Name(dtype) << " heads " << shape.heads << "/"
                                      << shape.kv_heads << " dim " << shape.head_dim);
      const int64_t length = 83, row = shape.heads * shape.head_dim;
      const auto out = OnEveryCpu([&](const Cpu& cpu) {
        Sequence sequence(shape, dtype, length, 1);
        sequence.Write(cpu, 0, length);
        return sequence.Attend(cpu, 0, length);
      });
      const Sequence sequence(shape, dtype, length, 1);
      const auto k = Stored(sequence.k, dtype), v = Stored(sequence.v, dtype);
      for (const int64_t position : {0, 1, 14, 15, 16, 17, 47, 63, 82}) {
        for (int64_t head = 0; head < shape.heads; ++head) {
          const auto expected = Definition(sequence, k, v, position, head);
          const float* got = &out[position * row + head * shape.head_dim];
          ASSERT_EQ(std::memcmp(got, expected.data(), expected.size() * sizeof(float)), 0)
              << "position " << position << " head " << head;
          const auto exact = Exact(sequence, k, v, position, head);
          for (int64_t d = 0; d < shape.head_dim; ++d) ASSERT_NEAR(got[d], exact[d], 2e-5);
        }
      }
    }
  }
}

// Prefill in any chunks, written as it goes over memory full of NaN patterns, equals one pass; so
// does decode, token by token.
TEST(Attention, ChunksDoNotMatter) {
  const Shape shape{10, 2, 40};
  const int64_t length = 70, row = shape.heads * shape.head_dim;
  for (DType dtype : kEveryDType) {
    Sequence whole(shape, dtype, length, 5);
    whole.Write(BestCpu(), 0, length);
    const auto expected = whole.Attend(BestCpu(), 0, length);
    for (const NamedCpu& named : EveryCpu()) {
      for (const int64_t chunk : {1, 7, 16, 33}) {
        Sequence sequence(shape, dtype, length, 5);
        for (int64_t first = 0; first < length; first += chunk) {
          const int64_t count = std::min(chunk, length - first);
          sequence.Write(named.cpu, first, count);
          const auto part = sequence.Attend(named.cpu, first, count);
          ASSERT_EQ(std::memcmp(part.data(), &expected[first * row], part.size() * sizeof(float)),
                    0)
              << named.name << " chunk " << chunk << " at " << first;
        }
        ASSERT_TRUE(sequence.pool == whole.pool);
      }
    }
  }
}

// Heads apart equal heads together, and leave the others alone.
TEST(Attention, KvHeadsDoNotMatter) {
  const Shape shape{6, 3, 24};
  const int64_t length = 40, row = shape.heads * shape.head_dim, part = row / shape.kv_heads;
  Sequence sequence(shape, DType::kBF16, length, 3);
  sequence.Write(BestCpu(), 0, length);
  const auto whole = sequence.Attend(BestCpu(), 0, length);
  for (const NamedCpu& named : EveryCpu()) {
    for (const auto& [head, heads] : {std::pair{0, 1}, {1, 1}, {1, 2}, {2, 0}}) {
      const auto out = sequence.Attend(named.cpu, 0, length, head, heads);
      const int64_t end = heads == 0 ? shape.kv_heads : head + heads;
      for (int64_t i = 0; i < length * row; ++i) {
        const int64_t of = i % row / part;
        ASSERT_EQ(out[i], of >= head && of < end ? whole[i] : 0.0f) << named.name << " " << head;
      }
    }
  }
}

// Tokens of several sequences in one call, of one of them more than go together: each as if alone.
TEST(Attention, SequencesDoNotMatter) {
  const Shape shape{4, 2, 16};
  const int64_t row = shape.heads * shape.head_dim;
  Sequence sequence(shape, DType::kBF16, 208, 4);
  sequence.Write(BestCpu(), 0, 208);
  const std::vector<int32_t> other(sequence.blocks.rbegin(), sequence.blocks.rend());
  const std::vector<std::tuple<const int32_t*, int32_t, int32_t>> runs = {
      {sequence.blocks.data(), 30, 3}, {other.data(), 17, 1}, {sequence.blocks.data(), 2, 2},
      {other.data(), 40, 45},          {other.data(), 10, 1},
  };
  std::vector<AttendToken> tokens;
  for (const auto& [blocks, first, count] : runs) {
    for (int32_t t = 0; t < count; ++t) tokens.push_back({first + t, blocks});
  }
  for (const NamedCpu& named : EveryCpu()) {
    const auto attend = [&](size_t first, size_t count) {
      std::vector<float> out(count * row);
      bottega::Attend(named.cpu, {.q = &sequence.q[first * row],
                                  .q_stride = row,
                                  .heads = shape.heads,
                                  .scale = Sequence::kScale,
                                  .tokens = absl::MakeConstSpan(tokens).subspan(first, count),
                                  .layer = sequence.Layer(),
                                  .out = out.data(),
                                  .out_stride = row});
      return out;
    };
    const auto all = attend(0, tokens.size());
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto alone = attend(t, 1);
      ASSERT_EQ(std::memcmp(alone.data(), &all[t * row], row * sizeof(float)), 0)
          << named.name << " token " << t;
    }
    EXPECT_TRUE(attend(0, 0).empty());
  }
}

// Large scores: the running maximum moves at every block and nothing overflows.
TEST(Attention, LargeScoresStayFinite) {
  const Shape shape{2, 1, 16};
  Sequence sequence(shape, DType::kF32, 64, 9);
  for (int64_t p = 0; p < 64; ++p) {
    for (int64_t d = 0; d < 16; ++d)
      sequence.k[p * 16 + d] = static_cast<float>(p % 2 ? p : -p) * 40.0f;
  }
  sequence.Write(BestCpu(), 0, 64);
  const auto out = sequence.Attend(BestCpu(), 63, 1);
  for (float value : out) EXPECT_TRUE(std::isfinite(value));
}

}  // namespace
}  // namespace bottega
