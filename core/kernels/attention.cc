#include "core/kernels/attention.h"

#include <algorithm>

#include "absl/container/fixed_array.h"
#include "core/base/check.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/row_items.h"
#include "core/kernels/cpu/threads.h"
#include "core/tensor/bf16.h"

namespace bottega {
namespace {

static_assert(kAttendTokensMax == kAttendTokensTogether);

// Below this many multiply-adds waking a thread costs more than it saves.
constexpr int64_t kInlineMacs = 1 << 18;

// Scatters one token: its key to lane `offset` of [kv_heads][head_dim][16], its value to row
// `offset` of [kv_heads][16][head_dim].
template <class R, class Round>
void WriteToken(const WriteKvArgs& args, int64_t token, const Round& round) {
  const KvLayout& layout = args.layer.layout;
  const KvSlot slot = args.slots[token];
  std::byte* block = args.layer.base + slot.block * args.layer.block_stride_bytes;
  R* keys = reinterpret_cast<R*>(block);
  R* values = reinterpret_cast<R*>(block + layout.KeyBytes());
  const float* k = args.k + token * args.stride;
  const float* v = args.v + token * args.stride;
  for (int64_t i = 0; i < layout.kv_heads * layout.head_dim; ++i) {
    keys[i * kKvBlockPositions + slot.offset] = round(k[i]);
  }
  for (int64_t head = 0; head < layout.kv_heads; ++head) {
    R* row = values + (head * kKvBlockPositions + slot.offset) * layout.head_dim;
    for (int64_t d = 0; d < layout.head_dim; ++d) row[d] = round(v[head * layout.head_dim + d]);
  }
}

void CheckLayer(const KvLayer& layer) {
  CHECK(layer.base != nullptr);
  CHECK(layer.layout.kv_heads > 0 && layer.layout.head_dim > 0);
  CHECK_EQ(layer.layout.head_dim % 8, 0);
  CHECK_GE(layer.block_stride_bytes, layer.layout.BlockBytes());
}

}  // namespace

void WriteKv(const Cpu& cpu, const WriteKvArgs& args) {
  CheckLayer(args.layer);
  for (const KvSlot& slot : args.slots) {
    CHECK(slot.block >= 0 && slot.offset >= 0 && slot.offset < kKvBlockPositions);
  }
  const KvLayout& layout = args.layer.layout;
  ForRows(cpu, args.slots.size(), 2 * layout.kv_heads * layout.head_dim, [&](int64_t token) {
    if (layout.dtype == DType::kF32) {
      WriteToken<float>(args, token, [](float x) { return x; });
    } else {
      WriteToken<BF16>(args, token, RoundToBF16);
    }
  });
}

void Attend(const Cpu& cpu, const AttendArgs& args) {
  CheckLayer(args.layer);
  const KvLayout& layout = args.layer.layout;
  CHECK(args.heads > 0 && args.heads % layout.kv_heads == 0);
  const int64_t run_heads = args.heads / layout.kv_heads;
  const size_t kv_head_bytes = layout.KeyBytes() / layout.kv_heads;
  const int64_t kv_heads =
      args.kv_heads == 0 ? layout.kv_heads - args.first_kv_head : args.kv_heads;
  CHECK(args.first_kv_head >= 0 && kv_heads >= 0);
  CHECK_LE(args.first_kv_head + kv_heads, layout.kv_heads);
  // Tokens of one sequence go together, as many as leave each thread four items: first token of
  // each such run, and the end.
  const int64_t longest = std::clamp<int64_t>(
      static_cast<int64_t>(args.tokens.size()) * kv_heads / (4 * cpu.pool->threads()), 1,
      kAttendTokensMax);
  absl::FixedArray<int32_t, 1024> runs(args.tokens.size() + 1);
  int64_t count = 0, macs = 0;
  for (size_t t = 0; t < args.tokens.size(); ++t) {
    const AttendToken& token = args.tokens[t];
    CHECK(token.position >= 0 && token.blocks != nullptr);
    macs += 2 * kv_heads * run_heads * layout.head_dim * (token.position + 1);
    const bool joins = t > 0 && args.tokens[t - 1].blocks == token.blocks &&
                       static_cast<int64_t>(t) - runs[count - 1] < longest;
    if (!joins) runs[count++] = static_cast<int32_t>(t);
  }
  runs[count] = static_cast<int32_t>(args.tokens.size());
  const auto run = [&](int64_t item, int) {
    const int64_t kv_head = args.first_kv_head + item % kv_heads;
    const int64_t token = runs[item / kv_heads];
    const int64_t tokens = runs[item / kv_heads + 1] - token;
    int32_t positions[kAttendTokensMax];
    for (int64_t t = 0; t < tokens; ++t) positions[t] = args.tokens[token + t].position;
    const int64_t first = kv_head * run_heads * layout.head_dim;
    const std::byte* keys = args.layer.base + kv_head * kv_head_bytes;
    cpu.primitives->attend({
        .q = args.q + token * args.q_stride + first,
        .q_stride = args.q_stride,
        .out = args.out + token * args.out_stride + first,
        .out_stride = args.out_stride,
        .tokens = tokens,
        .positions = positions,
        .heads = run_heads,
        .head_dim = layout.head_dim,
        .scale = args.scale,
        .blocks = args.tokens[token].blocks,
        .keys = keys,
        .values = keys + layout.KeyBytes(),
        .block_stride_bytes = args.layer.block_stride_bytes,
        .dtype = layout.dtype,
    });
  };
  const int64_t items = count * kv_heads;
  if (macs <= kInlineMacs) {
    for (int64_t item = 0; item < items; ++item) run(item, 0);
  } else {
    cpu.pool->ParallelFor(items, run);
  }
}

}  // namespace bottega
