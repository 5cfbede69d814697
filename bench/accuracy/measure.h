#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/accuracy/layers.h"
#include "bench/accuracy/whole_model.h"

namespace bottega {

// Names of rows that targets are about. The engine's are the engine itself; the others are emulated
// one like the other, so that nothing but blocks and roundings differs among them.
inline constexpr char kEngineInt8[] = "engine int8", kEngineInt4[] = "engine int4";
inline constexpr char kInt8[] = "int8", kInt4[] = "int4", kQ8[] = "Q8_0", kQ4[] = "Q4_0";
inline constexpr char kInt8Inputs40[] = "int8, inputs in 40", kInt8Both40[] = "int8, both in 40";

struct ModelRow {
  std::string name;
  double bytes_per_weight = 0;  // mean of the packed matrices, with scales, without alignment
  ModelLoss loss;
};
// bottega-tiny as it is; the sum over several draws of outliers.
absl::StatusOr<std::vector<ModelRow>> MeasureModel();
absl::StatusOr<std::vector<ModelRow>> MeasureModelWithOutliers(int draws);

struct LayerRow {
  std::string name;
  double bytes_per_weight = 0;  // mean of the expert
  LayerErrors plain, outliers;
};
std::vector<LayerRow> MeasureLayers();

}  // namespace bottega
