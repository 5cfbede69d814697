#include "core/model/region_writer.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/kernels/matmul.h"
#include "core/kernels/quantised.h"
#include "core/kernels/swiglu.h"
#include "core/model/refusal.h"
#include "core/model/region_sink.h"
#include "core/tensor/bf16.h"

namespace bottega {
namespace {

constexpr int64_t kPieceFloats = 1 << 20;  // 4 MiB of f32 source

// Rows to take at a time: a multiple of `unit`.
int64_t PieceRows(int64_t k, int64_t unit) {
  return std::max<int64_t>(unit, kPieceFloats / k / unit * unit);
}

void WidenRow(const RowBlock& block, int64_t row, absl::Span<float> out) {
  const std::byte* from = static_cast<const std::byte*>(block.data) +
                          static_cast<size_t>(row) * out.size() * SizeOf(block.dtype);
  if (block.dtype == DType::kF32) {
    std::memcpy(out.data(), from, out.size() * sizeof(float));
    return;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    BF16 value;
    std::memcpy(&value, from + i * sizeof(value), sizeof(value));
    out[i] = Widen(value);
  }
}

// What elements are stored as: magnitudes, as the bits of an f32, must be below `limit`.
struct Target {
  std::string_view name;
  uint32_t limit;
};

Target TargetOf(DType dtype) {
  // From 0x7f7f8000 on, rounding to bf16 carries into the exponent of infinity.
  return {Name(dtype), dtype == DType::kBF16 ? 0x7f7f8000u : 0x7f800000u};
}

Target TargetOf(WeightFormat weights) {
  if (!IsQuantised(weights)) return TargetOf(ElementOf(weights));
  return {Name(weights), std::bit_cast<uint32_t>(kQuantWeightMax)};
}

// Whether all magnitudes are below `limit`, which no NaN is. Reductions without a branch, so that
// the compiler vectorises them.
bool AllBelow(std::span<const std::byte> bytes, DType stored, uint32_t limit) {
  uint32_t worst = 0;
  if (stored == DType::kBF16) {
    for (size_t i = 0; i + 2 <= bytes.size(); i += 2) {
      uint16_t bits;
      std::memcpy(&bits, &bytes[i], 2);
      worst = std::max<uint32_t>(worst, bits & 0x7fffu);
    }
    return worst << 16 < limit;
  }
  for (size_t i = 0; i + 4 <= bytes.size(); i += 4) {
    uint32_t bits;
    std::memcpy(&bits, &bytes[i], 4);
    worst = std::max(worst, bits & 0x7fffffffu);
  }
  return worst < limit;
}

class Writer {
 public:
  Writer(const Checkpoint& checkpoint, const Region& region, WeightFormat weights, int fd,
         FaultPoints* faults)
      : checkpoint_(checkpoint), weights_(weights), sink_(region, fd, faults) {}

  absl::StatusOr<RegionSums> Run() {
    return sink_.WriteSections([this](const Section& section) { return WriteSection(section); });
  }

 private:
  absl::Status WriteSection(const Section& section) {
    const bool quantised = IsQuantised(weights_);
    const DType element = quantised ? DType::kF32 : ElementOf(weights_);
    switch (section.kind) {
      case Section::Kind::kRows:
        return quantised ? WriteTable(section) : WriteRows(section, element);
      case Section::Kind::kVector:
        return WriteRows(section, DType::kF32);
      case Section::Kind::kTiles:
        return quantised ? WriteQuantised(section) : WriteTiles(section, element);
      case Section::Kind::kTilesF32:
        return WriteTiles(section, DType::kF32);
      case Section::Kind::kGateUp:
        return quantised ? WriteQuantisedGateUp(section) : WriteGateUp(section, element);
    }
    CHECK(false);
    return absl::OkStatus();
  }

  absl::Status WriteRows(const Section& section, DType dtype) {
    const int64_t step = std::max<int64_t>(1, kPieceFloats / section.k);
    std::vector<std::byte> out;
    for (int64_t row = 0; row < section.rows[0]; row += step) {
      int64_t rows = std::min(step, section.rows[0] - row);
      std::vector<std::byte> buffer;
      ASSIGN_OR_RETURN(RowBlock block, Read(section, 0, row, rows, TargetOf(dtype), buffer));
      if (block.dtype == dtype) {
        RETURN_IF_ERROR(sink_.Write(buffer));
        continue;
      }
      ConvertElements(buffer, block.dtype, dtype, out);
      RETURN_IF_ERROR(sink_.Write(out));
    }
    return absl::OkStatus();
  }

  absl::Status WriteTable(const Section& section) {
    const int64_t step = PieceRows(section.k, 1);
    const size_t row_bytes = QuantisedTableRowBytes(weights_, section.k);
    std::vector<std::byte> out;
    std::vector<float> values(static_cast<size_t>(section.k));
    for (int64_t row = 0; row < section.rows[0]; row += step) {
      const int64_t rows = std::min(step, section.rows[0] - row);
      std::vector<std::byte> buffer;
      ASSIGN_OR_RETURN(RowBlock block, Read(section, 0, row, rows, TargetOf(weights_), buffer));
      out.resize(static_cast<size_t>(rows) * row_bytes);
      for (int64_t i = 0; i < rows; ++i) {
        WidenRow(block, i, absl::MakeSpan(values));
        QuantiseTableRow(weights_, values, out.data() + static_cast<size_t>(i) * row_bytes);
      }
      RETURN_IF_ERROR(sink_.Write(out));
    }
    return absl::OkStatus();
  }

  // Calls pack(blocks, rows) with pieces of the stacked sources, `unit` rows or a multiple of it at
  // a time (the last piece may be shorter), and writes what it returns.
  template <class PackPiece>
  absl::Status WriteStacked(const Section& section, int64_t unit, const Target& target,
                            const PackPiece& pack) {
    int64_t total = 0;
    for (int64_t rows : section.rows) total += rows;
    const int64_t step = PieceRows(section.k, unit);
    for (int64_t begin = 0; begin < total; begin += step) {
      const int64_t end = std::min(total, begin + step);
      std::vector<RowBlock> blocks;
      std::vector<std::vector<std::byte>> buffers(section.sources.size());
      int64_t source_begin = 0;
      for (size_t i = 0; i < section.sources.size(); ++i) {
        const int64_t from = std::max(begin, source_begin);
        const int64_t to = std::min(end, source_begin + section.rows[i]);
        if (from < to) {
          ASSIGN_OR_RETURN(RowBlock block,
                           Read(section, i, from - source_begin, to - from, target, buffers[i]));
          blocks.push_back(block);
        }
        source_begin += section.rows[i];
      }
      RETURN_IF_ERROR(sink_.Write(pack(blocks, end - begin)));
    }
    return absl::OkStatus();
  }

  absl::Status WriteTiles(const Section& section, DType dtype) {
    return WriteStacked(section, kTileLanes, TargetOf(dtype),
                        [&](const std::vector<RowBlock>& blocks, int64_t rows) {
                          std::vector<std::byte> out(PackedBytes(dtype, rows, section.k));
                          PackTiles(blocks, section.k, dtype, out.data());
                          return out;
                        });
  }

  // A panel is packed by itself, so pieces of whole panels make the bytes of the whole matrix.
  absl::Status WriteQuantised(const Section& section) {
    return WriteStacked(section, kQuantPanelTiles * kTileLanes, TargetOf(weights_),
                        [&](const std::vector<RowBlock>& blocks, int64_t rows) {
                          return Quantised(
                              {.format = weights_, .n = rows, .k = section.k},
                              [&](int64_t row, float* out) {
                                auto block = blocks.begin();
                                for (; row >= block->rows; ++block) row -= block->rows;
                                WidenRow(*block, row, {out, static_cast<size_t>(section.k)});
                              });
                        });
  }

  static std::vector<std::byte> Quantised(const QuantisedShape& shape, WeightRow row) {
    std::vector<std::byte> out(shape.bytes());
    PackQuantised(shape, row, out.data());
    return out;
  }

  // Calls pack(gate, up, rows) with `unit` rows of both, or a multiple.
  template <class PackPiece>
  absl::Status WritePairs(const Section& section, int64_t unit, const Target& target,
                          const PackPiece& pack) {
    const int64_t width = section.rows[0], step = PieceRows(section.k, unit);
    for (int64_t row = 0; row < width; row += step) {
      const int64_t rows = std::min(step, width - row);
      std::vector<std::byte> gate_buffer;
      std::vector<std::byte> up_buffer;
      ASSIGN_OR_RETURN(RowBlock gate, Read(section, 0, row, rows, target, gate_buffer));
      ASSIGN_OR_RETURN(RowBlock up, Read(section, 1, row, rows, target, up_buffer));
      RETURN_IF_ERROR(sink_.Write(pack(gate, up, rows)));
    }
    return absl::OkStatus();
  }

  absl::Status WriteGateUp(const Section& section, DType dtype) {
    return WritePairs(section, kTileLanes, TargetOf(dtype),
                      [&](const RowBlock& gate, const RowBlock& up, int64_t rows) {
                        std::vector<std::byte> out(GateUpPackedBytes(dtype, rows, section.k));
                        PackGateUp(gate, up, section.k, dtype, out.data());
                        return out;
                      });
  }

  // Pieces of whole spans, for the same reason.
  absl::Status WriteQuantisedGateUp(const Section& section) {
    const int64_t group = QuantGroup(weights_, section.rows[0]);
    return WritePairs(
        section, group, TargetOf(weights_),
        [&](const RowBlock& gate, const RowBlock& up, int64_t rows) {
          const QuantisedShape shape = {
              .format = weights_, .n = 2 * rows, .k = section.k, .span = group / 8};
          return Quantised(shape, [&](int64_t output, float* out) {
            const GateUpRow from = GateUpRow::Of(output);
            WidenRow(from.up ? up : gate, from.row, {out, static_cast<size_t>(section.k)});
          });
        });
  }

  static void ConvertElements(const std::vector<std::byte>& in, DType from, DType to,
                              std::vector<std::byte>& out) {
    const size_t count = in.size() / SizeOf(from);
    out.resize(count * SizeOf(to));
    for (size_t i = 0; i < count; ++i) {
      if (from == DType::kBF16) {
        BF16 value;
        std::memcpy(&value, &in[i * 2], 2);
        float wide = Widen(value);
        std::memcpy(&out[i * 4], &wide, 4);
      } else {
        float value;
        std::memcpy(&value, &in[i * 4], 4);
        BF16 narrow = RoundToBF16(value);
        std::memcpy(&out[i * 2], &narrow, 2);
      }
    }
  }

  absl::StatusOr<RowBlock> Read(const Section& section, size_t source, int64_t row, int64_t rows,
                                const Target& target, std::vector<std::byte>& buffer) {
    const Checkpoint::Tensor& tensor = checkpoint_.Find(section.sources[source]);
    buffer.resize(static_cast<size_t>(rows * section.k) * SizeOf(tensor.dtype));
    RETURN_IF_ERROR(checkpoint_.Read(tensor, row * section.k, buffer));
    if (!AllBelow(buffer, tensor.dtype, target.limit)) {
      return RefuseModel(checkpoint_.files()[tensor.file].name(), ": tensor \"",
                         section.sources[source],
                         "\" has a NaN, an infinity or a value too large for ", target.name,
                         " in rows ", row, " to ", row + rows - 1);
    }
    return RowBlock{.data = buffer.data(), .dtype = tensor.dtype, .rows = rows};
  }

  const Checkpoint& checkpoint_;
  const WeightFormat weights_;
  RegionSink sink_;
};

}  // namespace

absl::StatusOr<RegionSums> WriteRegion(const Checkpoint& checkpoint, const Region& region,
                                       WeightFormat weights, int fd, FaultPoints* faults) {
  return Writer(checkpoint, region, weights, fd, faults).Run();
}

}  // namespace bottega
