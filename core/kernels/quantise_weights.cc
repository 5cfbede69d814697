#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/base/check.h"
#include "core/kernels/quantised.h"

// Weights to integers, once, when a model is packed. Everything here is plain f32 arithmetic in a
// fixed order: the same weights give the same bytes on every machine.

namespace bottega {
namespace {

constexpr float kMagic = 0x1.8p+23f;  // added and taken away: rounds to the nearest integer, even

// The least bf16 that is not below `value` (> 0).
BF16 RoundUpToBF16(float value) {
  BF16 rounded = RoundToBF16(value);
  if (Widen(rounded) < value) ++rounded.bits;
  return rounded;
}

// Writes w / scale to the nearest integer; what has no inverse is zero.
void Round(absl::Span<const float> w, float scale, float least, float most, int32_t* q) {
  const float inverse = 1.0f / scale;
  for (size_t i = 0; i < w.size(); ++i) {
    float value = (w[i] * inverse + kMagic) - kMagic;
    value = value < least ? least : value;
    value = value > most ? most : value;
    q[i] = static_cast<int32_t>(value);
  }
}

float LargestMagnitude(absl::Span<const float> w) {
  float largest = 0;
  for (float value : w) largest = std::max(largest, std::fabs(value));
  return largest;
}

float SquaredError(absl::Span<const float> w, float scale, const int32_t* q) {
  float error = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const float off = w[i] - scale * static_cast<float>(q[i]);
    error += off * off;
  }
  return error;
}

// Scales tried for int4: the largest magnitude falls on `kLeast` to kLeast + 15 * kStep, on either
// side of zero, for [-8, 7] is not symmetric.
constexpr int kTried = 32;
constexpr float kLeast = 5.25f, kStep = 0.25f;

// The squared error of every scale tried, all of them side by side.
struct Trial {
  float scale[kTried], inverse[kTried], error[kTried];
};
void Try(absl::Span<const float> w, float largest, Trial& trial) {
  for (int i = 0; i < kTried; ++i) {
    const float magnitude = largest / (kLeast + kStep * static_cast<float>(i / 2));
    trial.scale[i] = Widen(RoundToBF16(i % 2 == 0 ? magnitude : -magnitude));
    trial.inverse[i] = 1.0f / trial.scale[i];
    trial.error[i] = 0;
  }
  for (float value : w) {
    for (int i = 0; i < kTried; ++i) {
      float q = (value * trial.inverse[i] + kMagic) - kMagic;
      q = q < -8.0f ? -8.0f : q;
      q = q > 7.0f ? 7.0f : q;
      const float off = value - trial.scale[i] * q;
      trial.error[i] += off * off;
    }
  }
}

// The scale of a group, and its integers. Magnitudes below 2^-100 become zeros.
BF16 QuantiseInt8(absl::Span<const float> w, float largest, int32_t* q) {
  const BF16 scale = RoundUpToBF16(largest / 127.0f);
  Round(w, Widen(scale), -127.0f, 127.0f, q);
  return scale;
}

BF16 QuantiseInt4(absl::Span<const float> w, float largest, int32_t* q) {
  Trial trial;
  Try(w, largest, trial);
  const int best =
      static_cast<int>(std::min_element(trial.error, trial.error + kTried) - trial.error);
  BF16 scale = RoundToBF16(trial.scale[best]);
  Round(w, Widen(scale), -8.0f, 7.0f, q);
  // The best scale for these integers is a quotient; taken if it is better with its own integers.
  float products = 0, squares = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    products += w[i] * static_cast<float>(q[i]);
    squares += static_cast<float>(q[i] * q[i]);
  }
  const BF16 fitted = RoundToBF16(squares == 0 ? 0.0f : products / squares);
  if (std::fabs(Widen(fitted)) < 0x1p-110f) return scale;
  int32_t other[kQuantGroupMax];
  Round(w, Widen(fitted), -8.0f, 7.0f, other);
  if (SquaredError(w, Widen(fitted), other) >= SquaredError(w, Widen(scale), q)) return scale;
  std::copy_n(other, w.size(), q);
  return fitted;
}

BF16 QuantiseGroup(WeightFormat format, absl::Span<const float> w, int32_t* q) {
  const float largest = LargestMagnitude(w);
  CHECK(largest < kQuantWeightMax);
  if (largest < 1 / kQuantWeightMax) {
    std::fill_n(q, w.size(), 0);
    return BF16{0};
  }
  return format == WeightFormat::kInt4 ? QuantiseInt4(w, largest, q) : QuantiseInt8(w, largest, q);
}

// Writes into one panel of `tiles`, lane by lane.
class PanelWriter {
 public:
  PanelWriter(const QuantisedShape& shape, int64_t tiles, std::byte* panel)
      : shape_(shape), tiles_(tiles), panel_(panel) {
    // Lanes that no output has: scale 0, and the integer 0.
    std::memset(panel, 0, shape.PanelBytes(tiles));
    for (int64_t group = 0; group < shape.k / shape.group(); ++group) {
      std::memset(GroupAt(group) + ScaleBytes(), ZeroByte(shape.format), ValueBytes());
    }
  }

  void Lane(int64_t tile, int64_t lane, absl::Span<const float> row) {
    const int64_t part_size = shape_.weight_group(), parts = shape_.group() / part_size;
    int32_t q[kQuantGroupMax];
    for (int64_t part = 0; part < shape_.k / part_size; ++part) {
      const BF16 scale = QuantiseGroup(shape_.format, row.subspan(part * part_size, part_size), q);
      std::byte* group = GroupAt(part / parts);
      const int64_t in_group = part % parts;
      std::memcpy(group + ((in_group * tiles_ + tile) * 16 + lane) * 2, &scale, 2);
      for (int64_t i = 0; i < part_size; ++i) {
        Put(group + ScaleBytes(), in_group * part_size + i, tile, lane, q[i]);
      }
    }
  }

 private:
  size_t ScaleBytes() const { return shape_.ScaleBytes(tiles_); }
  size_t ValueBytes() const { return shape_.ValueBytes(tiles_); }
  std::byte* GroupAt(int64_t group) const {
    return panel_ + static_cast<size_t>(group) * (ScaleBytes() + ValueBytes());
  }
  void Put(std::byte* values, int64_t k, int64_t tile, int64_t lane, int32_t q) const {
    const auto stored = static_cast<std::byte>(q + ZeroPoint(shape_.format));
    if (shape_.format == WeightFormat::kInt8) {
      values[((k / 4 * tiles_ + tile) * 16 + lane) * 4 + k % 4] = stored;
      return;
    }
    std::byte& two = values[((k / 8 * tiles_ + tile) * 16 + lane) * 4 + k % 4];
    two = k % 8 < 4 ? (two & std::byte{0xf0}) | stored : (two & std::byte{0x0f}) | stored << 4;
  }

  const QuantisedShape& shape_;
  int64_t tiles_;
  std::byte* panel_;
};

}  // namespace

void PackQuantised(const QuantisedShape& shape, WeightRow row, std::byte* dst) {
  CHECK_GT(shape.group(), 0);
  std::vector<float> values(static_cast<size_t>(shape.k));
  ForEachPanel(shape, [&](int64_t first, int64_t tiles) {
    PanelWriter writer(shape, tiles, dst);
    for (int64_t lane = 0; lane < tiles * 16 && first + lane < shape.n; ++lane) {
      row(first + lane, values.data());
      writer.Lane(lane / 16, lane % 16, values);
    }
    dst += shape.PanelBytes(tiles);
  });
}

void QuantiseTableRow(WeightFormat format, absl::Span<const float> row, std::byte* dst) {
  const int64_t k = static_cast<int64_t>(row.size()), part_size = WeightGroup(format, k);
  CHECK_GT(part_size, 0);
  std::memset(dst, 0, QuantisedTableRowBytes(format, k));
  std::byte* scales = dst + QuantisedTableValueBytes(format, k);
  int32_t q[kQuantGroupMax];
  for (int64_t part = 0; part < k / part_size; ++part) {
    const BF16 scale = QuantiseGroup(format, row.subspan(part * part_size, part_size), q);
    std::memcpy(scales + part * 2, &scale, 2);
    for (int64_t i = 0; i < part_size; ++i) {
      const int64_t at = part * part_size + i;
      const auto stored = static_cast<std::byte>(q[i] + ZeroPoint(format));
      if (format == WeightFormat::kInt8) {
        dst[at] = stored;
      } else {
        dst[at / 2] |= at % 2 == 0 ? stored : stored << 4;
      }
    }
  }
}

void ReadTableRow(WeightFormat format, const std::byte* src, absl::Span<float> row) {
  const int64_t k = static_cast<int64_t>(row.size()), part_size = WeightGroup(format, k);
  const std::byte* scales = src + QuantisedTableValueBytes(format, k);
  for (int64_t i = 0; i < k; ++i) {
    BF16 scale;
    std::memcpy(&scale, scales + i / part_size * 2, 2);
    const std::byte stored = format == WeightFormat::kInt8 ? src[i]
                             : i % 2 == 0                  ? src[i / 2] & std::byte{0x0f}
                                                           : src[i / 2] >> 4;
    row[i] =
        static_cast<float>(std::to_integer<int32_t>(stored) - ZeroPoint(format)) * Widen(scale);
  }
}

}  // namespace bottega
