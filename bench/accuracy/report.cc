#include "bench/accuracy/report.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/accuracy/measure.h"
#include "core/base/status.h"

namespace bottega {
namespace {

constexpr int kDraws = 3;

constexpr char kIntroduction[] = R"(# Accuracy of int8 and int4

Written by `build/release/bin/accuracy --write docs/accuracy.md`, from the repository's root: change the program (`bench/accuracy`), not this page.

Rows named `engine` are the engine's own answers. All others are emulated, one like the other: weights and the inputs of every product but
the router's are rounded to integers and a scale a block, and multiplied in float32 (whole model) or double (layers), so that nothing but
blocks and roundings differs. `int8` and `int4` are cut as the engine cuts them: blocks as long as fits, up to 128 inputs (120 at K = 2880 and
1080), int4 weights up to 40; "in 40" is the same with blocks of 40 at most. Q8_0 and Q4_0 are llama.cpp's blocks of 32, scales in f16,
inputs in int8 of the same blocks; K that 32 does not divide is padded with zeros. Bytes a weight are with scales and padding.
)";

constexpr char kOutlierNote[] = R"(
Outliers: 4 channels of every norm over hidden times 16, the matching columns of the matrices that read it divided by 16. In exact arithmetic
nothing changes.
)";

template <class Row>
const Row& Named(const std::vector<Row>& rows, const std::string& name) {
  return *std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == name; });
}

std::string LossCells(const Loss& loss) {
  return absl::StrFormat(
      "%.2g | %.2g | %.2g | %.1f %%", loss.largest, loss.mean_delta(), loss.mean_divergence(),
      100.0 * static_cast<double>(loss.same_first) / static_cast<double>(loss.positions));
}

std::string ModelTable(const std::vector<ModelRow>& rows) {
  std::string table = absl::StrFormat(
      "\nWhere the assistant writes: %d positions; everywhere: %d. Against transformers in "
      "float32: "
      "largest and mean difference of a logit,\nmean KL in nats, how often the first choice is the "
      "same.\n\n| | bytes a weight | assistant: max | mean | KL | first | everywhere: max | mean | "
      "KL | first |\n|---|---|---|---|---|---|---|---|---|---|\n",
      rows[0].loss.taught.positions, rows[0].loss.everywhere.positions);
  for (const ModelRow& row : rows) {
    absl::StrAppendFormat(&table, "| %s | %.3f | %s | %s |\n", row.name, row.bytes_per_weight,
                          LossCells(row.loss.taught), LossCells(row.loss.everywhere));
  }
  return table;
}

std::string LayerTable(const std::vector<LayerRow>& rows) {
  std::string table =
      "\n| | bytes a weight of the expert | expert | projection | expert, outliers | projection, "
      "outliers |\n|---|---|---|---|---|---|\n";
  for (const LayerRow& row : rows) {
    absl::StrAppendFormat(&table, "| %s | %.3f | %.2f %% | %.2f %% | %.2f %% | %.2f %% |\n",
                          row.name, row.bytes_per_weight, 100 * row.plain.expert,
                          100 * row.plain.projection, 100 * row.outliers.expert,
                          100 * row.outliers.projection);
  }
  return table;
}

class Targets {
 public:
  Targets(const std::vector<ModelRow>& plain, const std::vector<ModelRow>& outliers,
          const std::vector<LayerRow>& layers)
      : plain_(plain), outliers_(outliers), layers_(layers) {}

  std::string Table() {
    Absolute(kEngineInt8, 0.002);
    Absolute(kEngineInt4, 0.02);
    Against(kEngineInt8, kInt8, kQ8, 1.7, 2.5);
    Against(kEngineInt4, kInt4, kQ4, 1.0, 1.0);
    return table_;
  }

 private:
  void Line(const std::string& what, double figure, double most) {
    absl::StrAppendFormat(&table_, "| %s | %.2g | %g | %s |\n", what, figure, most,
                          figure <= most ? "met" : "NOT met");
  }

  void Absolute(const std::string& name, double most) {
    const ModelLoss& loss = Named(plain_, name).loss;
    Line("KL of " + name + " on bottega-tiny, assistant", loss.taught.mean_divergence(), most);
    Line("the same, everywhere", loss.everywhere.mean_divergence(), most);
  }

  void Against(const char* engine, const char* ours, const char* theirs, double most,
               double most_with_outliers) {
    for (const char* name : {engine, ours}) {
      Ratios(name, theirs, "", plain_, most);
      Ratios(name, theirs, ", outliers", outliers_, most_with_outliers);
    }
    const LayerRow& a = Named(layers_, ours);
    const LayerRow& b = Named(layers_, theirs);
    SquaredRatio(ours, theirs, "expert", a.plain.expert / b.plain.expert, most);
    SquaredRatio(ours, theirs, "projection", a.plain.projection / b.plain.projection, most);
    SquaredRatio(ours, theirs, "expert, outliers", a.outliers.expert / b.outliers.expert,
                 most_with_outliers);
    SquaredRatio(ours, theirs, "projection, outliers",
                 a.outliers.projection / b.outliers.projection, most_with_outliers);
  }

  void Ratios(const std::string& name, const std::string& theirs, const std::string& of,
              const std::vector<ModelRow>& rows, double most) {
    const ModelLoss& a = Named(rows, name).loss;
    const ModelLoss& b = Named(rows, theirs).loss;
    const std::string what = absl::StrCat("KL of ", name, " / ", theirs, of);
    Line(what + ", assistant", a.taught.mean_divergence() / b.taught.mean_divergence(), most);
    Line(what + ", everywhere", a.everywhere.mean_divergence() / b.everywhere.mean_divergence(),
         most);
  }

  void SquaredRatio(const std::string& ours, const std::string& theirs, const std::string& layer,
                    double ratio, double most) {
    Line(absl::StrCat("squared error of ", ours, " / ", theirs, ", ", layer), ratio * ratio, most);
  }

  const std::vector<ModelRow>& plain_;
  const std::vector<ModelRow>& outliers_;
  const std::vector<LayerRow>& layers_;
  std::string table_;
};

}  // namespace

absl::StatusOr<std::string> AccuracyReport() {
  const std::vector<LayerRow> layers = MeasureLayers();
  ASSIGN_OR_RETURN(const std::vector<ModelRow> plain, MeasureModel());
  ASSIGN_OR_RETURN(const std::vector<ModelRow> outliers, MeasureModelWithOutliers(kDraws));
  return absl::StrCat(
      kIntroduction, kOutlierNote, "\n## Targets\n\n| | figure | at most | |\n|---|---|---|---|\n",
      Targets(plain, outliers, layers).Table(), "\n## bottega-tiny\n", ModelTable(plain),
      "\n## bottega-tiny with outliers, ", kDraws, " draws of channels\n", ModelTable(outliers),
      "\n## Random layers of EngGPT2's width\n\nOne expert (2880, 1080) and one projection (2880 "
      "to "
      "4096); relative RMS error of the output against double precision.\n",
      LayerTable(layers));
}

}  // namespace bottega
