#include "bench/accuracy/measure.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>

#include "bench/accuracy/changed_checkpoint.h"
#include "core/base/status.h"
#include "core/kernels/cpu/threads.h"
#include "tests/core/model/temp_dir.h"

namespace bottega {
namespace {

struct Compared {
  BlockFormat format;
  std::optional<WeightFormat> engine;  // measured in the engine instead
};

using Rule = BlockFormat::Rule;
const Compared kCompared[] = {
    {{kEngineInt8, Rule::kInt8, 72, 72}, WeightFormat::kInt8},
    {{kInt8, Rule::kInt8, 72, 72}, {}},
    {{kInt8Inputs40, Rule::kInt8, 72, 40}, {}},
    {{kInt8Both40, Rule::kInt8, 40, 40}, {}},
    {{kQ8, Rule::kQ8_0}, {}},
    {{kEngineInt4, Rule::kInt4, 40, 128}, WeightFormat::kInt4},
    {{kInt4, Rule::kInt4, 40, 128}, {}},
    {{"int4, inputs in 40", Rule::kInt4, 40, 40}, {}},
    {{"int4, weights in 24", Rule::kInt4, 24, 128}, {}},
    {{"int4, both in 24", Rule::kInt4, 24, 24}, {}},
    {{kQ4, Rule::kQ4_0}, {}},
};

template <class Fn>
void InParallel(size_t items, const Fn& fn) {
  ThreadPool pool(static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 8u)));
  pool.ParallelFor(static_cast<int64_t>(items),
                   [&fn](int64_t item, int) { fn(static_cast<size_t>(item)); });
}

double BytesPerWeight(const ModelConfig& config, const BlockFormat& format) {
  double bytes = 0, weights = 0;
  for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
    if (!IsPackedMatrix(tensor)) continue;
    const auto count = static_cast<double>(tensor.shape[0] * tensor.shape[1]);
    weights += count;
    bytes += count * format.BytesPerWeight(tensor.shape[1]);
  }
  return bytes / weights;
}

absl::StatusOr<std::vector<ModelRow>> MeasureCheckpoint(const LogitsGolden& golden,
                                                        const std::filesystem::path& dir) {
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(dir));
  ASSIGN_OR_RETURN(const ModelLoss reference, ReferenceLoss(golden, *checkpoint));
  ASSIGN_OR_RETURN(const ModelLoss bf16, EngineLoss(golden, dir, WeightFormat::kBF16));
  std::vector<absl::StatusOr<ModelLoss>> losses(std::size(kCompared));
  InParallel(std::size(kCompared), [&](size_t i) {
    const auto& [format, engine] = kCompared[i];
    losses[i] =
        engine ? EngineLoss(golden, dir, *engine) : EmulatedLoss(golden, *checkpoint, format);
  });
  std::vector<ModelRow> rows = {{"reference graph f32", 4, reference}, {"engine bf16", 2, bf16}};
  for (size_t i = 0; i < losses.size(); ++i) {
    RETURN_IF_ERROR(losses[i].status());
    const BlockFormat& format = kCompared[i].format;
    rows.push_back({format.name, BytesPerWeight(checkpoint->config(), format), *losses[i]});
  }
  return rows;
}

}  // namespace

absl::StatusOr<std::vector<ModelRow>> MeasureModel() {
  const LogitsGolden golden = LoadLogitsGolden("bottega-tiny");
  return MeasureCheckpoint(golden, golden.model);
}

absl::StatusOr<std::vector<ModelRow>> MeasureModelWithOutliers(int draws) {
  const LogitsGolden golden = LoadLogitsGolden("bottega-tiny");
  ASSIGN_OR_RETURN(std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(golden.model));
  std::vector<ModelRow> sum;
  for (int draw = 1; draw <= draws; ++draw) {
    const TempDir dir;
    RETURN_IF_ERROR(
        WriteChanged(*checkpoint, dir.path(), AddOutliers(static_cast<uint64_t>(draw))));
    ASSIGN_OR_RETURN(std::vector<ModelRow> rows, MeasureCheckpoint(golden, dir.path()));
    for (size_t i = 0; i < sum.size(); ++i) rows[i].loss.Add(sum[i].loss);
    sum = std::move(rows);
  }
  return sum;
}

std::vector<LayerRow> MeasureLayers() {
  const Layers plain(false), outliers(true);
  std::vector<LayerRow> rows(std::size(kCompared));
  InParallel(rows.size(), [&](size_t i) {
    const auto& [format, engine] = kCompared[i];
    const auto errors = [&, &format = format, &engine = engine](const Layers& layers) {
      return engine ? layers.Engine(*engine) : layers.Emulated(format);
    };
    rows[i] = {format.name, ExpertBytesPerWeight(format), errors(plain), errors(outliers)};
  });
  return rows;
}

}  // namespace bottega
