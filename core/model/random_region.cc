#include "core/model/random_region.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/kernels/matmul.h"
#include "core/kernels/quantised.h"
#include "core/model/random_values.h"
#include "core/model/region_sink.h"
#include "core/model/tensor_set.h"

namespace bottega {
namespace {

constexpr int64_t kRowsAtOnce = 256;  // of a table

// The output's deviation, for inputs of mean square 1. 48 layers add about 0.7 to a residual whose
// square is 1 at the beginning.
double OutputDeviation(const std::string& source) {
  if (source == tensor_name::kEmbedding) return 1.0;
  if (source == tensor_name::kHead) return 2.0;
  if (source.ends_with(".o_proj.weight")) return 0.1;
  if (source.ends_with(".down_proj.weight")) return 0.3;
  return 1.0;
}

double Deviation(const Section& section) {
  const double output = OutputDeviation(section.sources[0]);
  if (section.kind == Section::Kind::kRows) return output;
  return output / std::sqrt(static_cast<double>(section.k));
}

class RandomWriter {
 public:
  RandomWriter(const Region& region, WeightFormat weights, uint64_t seed, int fd)
      : weights_(weights), values_(seed, region.name), sink_(region, fd) {}

  absl::StatusOr<RegionSums> Run() {
    return sink_.WriteSections([this](const Section& section) { return WriteSection(section); });
  }

 private:
  absl::Status WriteSection(const Section& section) {
    const bool quantised = IsQuantised(weights_);
    const int64_t rows = std::accumulate(section.rows.begin(), section.rows.end(), int64_t{0});
    switch (section.kind) {
      case Section::Kind::kRows:
        return WriteTable(section);
      case Section::Kind::kVector:
        return WriteOnes(section.k);
      case Section::Kind::kTilesF32:
        return WriteRouter(section);
      case Section::Kind::kTiles:
        if (quantised) return WritePanels(section, {.format = weights_, .n = rows, .k = section.k});
        return WriteTiles(section, rows, 1);
      case Section::Kind::kGateUp:
        if (quantised) {
          return WritePanels(section, GateUpShape(weights_, section.rows[0], section.k));
        }
        return WriteTiles(section, section.rows[0], 2);
    }
    CHECK(false);
    return absl::OkStatus();
  }

  absl::Status WriteTable(const Section& section) {
    const int64_t rows = section.rows[0], k = section.k;
    const double deviation = Deviation(section);
    for (int64_t row = 0; row < rows; row += kRowsAtOnce) {
      const size_t count = static_cast<size_t>(std::min(kRowsAtOnce, rows - row));
      if (!IsQuantised(weights_)) {
        piece_.resize(count * static_cast<size_t>(k) * SizeOf(ElementOf(weights_)));
        values_.Uniform(ElementOf(weights_), deviation, piece_);
      } else {
        const size_t row_bytes = QuantisedTableRowBytes(weights_, k);
        const size_t integers = static_cast<size_t>(QuantisedTableValueBytes(weights_, k));
        const size_t scales = static_cast<size_t>(k / WeightGroup(weights_, k)) * sizeof(BF16);
        piece_.assign(count * row_bytes, std::byte{0});
        for (size_t i = 0; i < count; ++i) {
          const std::span<std::byte> bytes = std::span(piece_).subspan(i * row_bytes, row_bytes);
          values_.Integers(weights_, bytes.first(integers));
          values_.Scales(weights_, deviation, bytes.subspan(integers, scales));
        }
      }
      RETURN_IF_ERROR(sink_.Write(piece_));
    }
    return absl::OkStatus();
  }

  absl::Status WriteOnes(int64_t count) {
    const std::vector<float> ones(static_cast<size_t>(count), 1.0f);
    return sink_.Write(std::as_bytes(std::span(ones)));
  }

  absl::Status WriteRouter(const Section& section) {
    for (int64_t left = section.rows[0]; left > 0; left -= kTileLanes) {
      piece_.resize(PackedBytes(DType::kF32, kTileLanes, section.k));
      values_.Normal(Deviation(section), piece_);
      ClearLanes(sizeof(float), left);
      RETURN_IF_ERROR(sink_.Write(piece_));
    }
    return absl::OkStatus();
  }

  // Tiles of PackedMatrix, `repeat` of every 16 rows: gate and up alternate.
  absl::Status WriteTiles(const Section& section, int64_t rows, int repeat) {
    const DType dtype = ElementOf(weights_);
    for (int64_t left = rows; left > 0; left -= kTileLanes) {
      for (int i = 0; i < repeat; ++i) {
        piece_.resize(PackedBytes(dtype, kTileLanes, section.k));
        values_.Uniform(dtype, Deviation(section), piece_);
        ClearLanes(SizeOf(dtype), left);
        RETURN_IF_ERROR(sink_.Write(piece_));
      }
    }
    return absl::OkStatus();
  }

  // Lanes of the tile in `piece_` that no output has are zero.
  void ClearLanes(size_t element, int64_t outputs) {
    if (outputs >= kTileLanes) return;
    const size_t used = static_cast<size_t>(outputs) * element;
    for (size_t at = 0; at < piece_.size(); at += kTileLanes * element) {
      std::fill_n(piece_.begin() + static_cast<ptrdiff_t>(at + used), kTileLanes * element - used,
                  std::byte{0});
    }
  }

  absl::Status WritePanels(const Section& section, const QuantisedShape& shape) {
    const double deviation = Deviation(section);
    absl::Status status;
    ForEachPanel(shape, [&](int64_t first, int64_t tiles) {
      if (!status.ok()) return;
      piece_.assign(shape.PanelBytes(tiles), std::byte{0});
      for (int64_t group = 0; group < shape.k / shape.group(); ++group) {
        FillGroup(shape, tiles, group, deviation, shape.n - first);
      }
      status = sink_.Write(piece_);
    });
    return status;
  }

  // One activation group of the panel in `piece_`. Lanes from `outputs` on: scale 0 and integer 0.
  void FillGroup(const QuantisedShape& shape, int64_t tiles, int64_t group, double deviation,
                 int64_t outputs) {
    const size_t scale_bytes = shape.ScaleBytes(tiles), value_bytes = shape.ValueBytes(tiles);
    const size_t parts = static_cast<size_t>(shape.group() / shape.weight_group());
    const size_t lanes = static_cast<size_t>(tiles * kTileLanes);
    std::byte* scales = piece_.data() + static_cast<size_t>(group) * (scale_bytes + value_bytes);
    std::byte* integers = scales + scale_bytes;
    values_.Scales(weights_, deviation, {scales, parts * lanes * sizeof(BF16)});
    values_.Integers(weights_, {integers, value_bytes});
    for (size_t lane = static_cast<size_t>(outputs); lane < lanes; ++lane) {
      for (size_t part = 0; part < parts; ++part) {
        std::memset(scales + (part * lanes + lane) * sizeof(BF16), 0, sizeof(BF16));
      }
      for (size_t quad = 0; quad < value_bytes / (lanes * 4); ++quad) {
        std::memset(integers + (quad * lanes + lane) * 4, ZeroByte(weights_), 4);
      }
    }
  }

  const WeightFormat weights_;
  RandomValues values_;
  RegionSink sink_;
  std::vector<std::byte> piece_;
};

}  // namespace

absl::StatusOr<RegionSums> WriteRandomRegion(const Region& region, WeightFormat weights,
                                             uint64_t seed, int fd) {
  return RandomWriter(region, weights, seed, fd).Run();
}

}  // namespace bottega
