#include "bench/accuracy/block_format.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/check.h"
#include "core/kernels/quantised.h"

namespace bottega {
namespace {

using Block = std::span<float>;

template <class RoundBlock>
void ForEachBlock(std::span<float> row, int64_t length, const RoundBlock& round) {
  for (size_t at = 0; at < row.size(); at += static_cast<size_t>(length)) {
    round(row.subspan(at, std::min(static_cast<size_t>(length), row.size() - at)));
  }
}

// The value of largest magnitude, with its sign.
float Extreme(Block block) {
  return *std::max_element(block.begin(), block.end(),
                           [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

// What the engine packs: a block is a table row of its own, of one group.
void RoundOurs(WeightFormat format, Block block) {
  const auto length = static_cast<int64_t>(block.size());
  CHECK_EQ(WeightGroup(format, length), length);
  std::vector<std::byte> stored(QuantisedTableRowBytes(format, length));
  QuantiseTableRow(format, block, stored.data());
  ReadTableRow(format, stored.data(), absl::MakeSpan(block.data(), block.size()));
}

void RoundOurInputs(Block block) {
  const float most = std::fabs(Extreme(block));
  if (most < 0x1p-100f) return std::fill(block.begin(), block.end(), 0.0f);
  const float inverse = 127.0f / most, scale = most / 127.0f;
  for (float& value : block) value = std::nearbyint(value * inverse) * scale;
}

void RoundQ8(Block block) {
  const float scale = std::fabs(Extreme(block)) / 127.0f;
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale, stored = RoundToF16(scale);
  for (float& value : block) value = std::round(value * inverse) * stored;
}

void RoundQ4(Block block) {
  const float scale = Extreme(block) / -8.0f;
  const float inverse = scale == 0 ? 0.0f : 1.0f / scale, stored = RoundToF16(scale);
  for (float& value : block) {
    const float q = std::min(15.0f, std::trunc(value * inverse + 8.5f));
    value = (q - 8.0f) * stored;
  }
}

}  // namespace

int64_t BlockFormat::WeightBlock(int64_t k) const {
  return theirs() ? 32 : LargestGroup(k, weights_most);
}
int64_t BlockFormat::InputBlock(int64_t k) const {
  return theirs() ? 32 : LargestGroup(k, inputs_most);
}

double BlockFormat::BytesPerWeight(int64_t k) const {
  const int64_t block = WeightBlock(k), blocks = (k + block - 1) / block;
  const double values = static_cast<double>(blocks * block) * (four_bits() ? 0.5 : 1.0);
  return (values + 2.0 * static_cast<double>(blocks)) / static_cast<double>(k);
}

void BlockFormat::RoundWeights(std::span<float> row) const {
  ForEachBlock(row, WeightBlock(static_cast<int64_t>(row.size())), [this](Block block) {
    switch (rule) {
      case Rule::kInt8:
        return RoundOurs(WeightFormat::kInt8, block);
      case Rule::kInt4:
        return RoundOurs(WeightFormat::kInt4, block);
      case Rule::kQ8_0:
        return RoundQ8(block);
      case Rule::kQ4_0:
        return RoundQ4(block);
    }
  });
}

void BlockFormat::RoundInputs(std::span<float> row) const {
  ForEachBlock(row, InputBlock(static_cast<int64_t>(row.size())),
               theirs() ? RoundQ8 : RoundOurInputs);
}

float RoundToF16(float value) {
  if (value == 0) return value;
  int exponent;
  std::frexp(value, &exponent);
  const int unit = std::max(exponent - 11, -24);  // of 11 bits; subnormals share the least one
  return std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
}

}  // namespace bottega
