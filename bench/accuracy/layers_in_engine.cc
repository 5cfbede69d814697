#include <algorithm>

#include "bench/accuracy/layers.h"
#include "core/kernels/cpu/threads.h"
#include "core/kernels/quantised.h"
#include "core/tensor/aligned_buffer.h"

namespace bottega {
namespace {

constexpr int64_t kRows = kLayerRows;

// Packed for the kernels, with what owns the bytes.
class PackedLayer {
 public:
  PackedLayer(const QuantisedShape& shape, WeightRow row) : shape_(shape), bytes_(shape.bytes()) {
    PackQuantised(shape, row, bytes_.data());
  }
  PackedLayer(const QuantisedShape& shape, const std::vector<float>& matrix)
      : PackedLayer(shape, [&](int64_t output, float* out) {
          std::copy_n(&matrix[static_cast<size_t>(output * shape.k)], shape.k, out);
        }) {}
  QuantisedMatrix matrix() const { return {bytes_.data(), shape_}; }

 private:
  QuantisedShape shape_;
  AlignedBuffer bytes_;
};

// Rows of inputs, with what owns them.
struct InputRows {
  InputRows(WeightFormat format, int64_t k)
      : bytes(QuantisedRows::Bytes(format, kRows, k)),
        rows(QuantisedRows::In(bytes.data(), format, kRows, k)) {}
  AlignedBuffer bytes;
  QuantisedRows rows;
};

}  // namespace

LayerOutputs RunInEngine(const LayerMatrices& matrices, const std::vector<float>& x,
                         WeightFormat format) {
  const PackedLayer gate_up(
      GateUpShape(format, kLayerWidth, kLayerHidden), [&](int64_t output, float* out) {
        const GateUpRow from = GateUpRow::Of(output);
        const std::vector<float>& matrix = from.up ? matrices.up : matrices.gate;
        std::copy_n(&matrix[static_cast<size_t>(from.row * kLayerHidden)], kLayerHidden, out);
      });
  const PackedLayer down({.format = format, .n = kLayerHidden, .k = kLayerWidth}, matrices.down);
  const PackedLayer projection({.format = format, .n = kLayerOutputs, .k = kLayerHidden},
                               matrices.projection);
  ThreadPool pool(1);
  const Cpu cpu = MakeCpu(BestIsa(), &pool);
  const InputRows in(format, kLayerHidden), inner(format, kLayerWidth);
  Quantise(cpu, {.x = x.data(), .x_stride = kLayerHidden, .rows = kRows, .to = in.rows});
  const QuantisedGateUpArgs first = {
      .x = in.rows, .m = kRows, .w = gate_up.matrix(), .out = inner.rows};
  QuantisedGateUpGroup(cpu, {&first, 1});
  const auto multiply = [&](const InputRows& from, const PackedLayer& layer) {
    const QuantisedMatrix w = layer.matrix();
    std::vector<float> y(static_cast<size_t>(kRows * w.shape.n));
    const QuantisedMatMulArgs product = {
        .x = from.rows, .m = kRows, .w = w, .y = y.data(), .y_stride = w.shape.n};
    QuantisedMatMulGroup(cpu, {&product, 1});
    return std::vector<double>(y.begin(), y.end());
  };
  return {.expert = multiply(inner, down), .projection = multiply(in, projection)};
}

}  // namespace bottega
