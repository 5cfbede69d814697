#include "bench/accuracy/report.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/accuracy/measure.h"
#include "core/base/status.h"

namespace bottega {
namespace {

constexpr int kDraws = 3;

constexpr char kIntroduction[] = R"(# Accuracy of int8 and int4

Written by `build/release/bin/accuracy --write docs/accuracy.md` in the repository's root: change the program (`bench/accuracy`), not this
page. Another library's exp and log may change a last digit, or a choice of experts that was close.

Rows named `engine` are the engine's own answers, with rows in bf16 as it is served. All others are emulated, one like the other: weights, and
the inputs of every product but the router's, are rounded to integers and a scale a block, then multiplied in float32 (whole model) or double
(layers), so that nothing but blocks and roundings differs. `int8` and `int4` are cut as the engine cuts them: the longest blocks that divide
K, in int8 up to 72 inputs (72 at K = 2880 and 1080, 64 at 4096), in int4 up to 128, int4 weights up to 40. "Both in 40" is the same with
weights and inputs in blocks of up to 40; "inputs in 40" with the weights as they are. Q8_0 and Q4_0 are llama.cpp's blocks of 32 as published: scales in f16, inputs in int8 of blocks of 32 too; where 32 does
not divide K the last block is padded with zeros. Bytes a weight are with scales and padding.
)";

constexpr char kTargetsNote[] =
    R"(A figure in bold is past its limit. KL grows as the square of the error, so the layers' errors are compared squared, with the same limits.

The step of a block is a fraction of its largest value. Of gaussian values the largest grows slowly with the length of a block; of what SwiGLU
makes, which has long tails, faster; and an outlier makes the step coarse for as many neighbours as its block has. So long blocks lose most
where inputs have tails. Finer blocks of inputs take no bytes of weights, only more folds of exact sums in the kernel: at 40 as many as int4
has. Finer blocks of weights take two bytes a block. So int8 is cut at 72, where all limits hold: docs/decisions/0023 weighs it.
)";

constexpr char kModelNote[] =
    R"(Against transformers in float32: largest and mean difference of a logit, mean KL in nats, how often the first choice is the same. "Assistant":
positions where the assistant writes; the user's words, which are the rest of "everywhere", the model was never taught to guess. There its
choice of experts can hang on the last bit, and one choice that falls the other way outweighs a thousand positions. So "experts given" is
everywhere once more, with the experts that the reference chose: what rounding does besides. No multiple of 8 from 16 to
40 divides an expert's width of 56, so blocks of up to 40 are 8 there: they take more bytes, and lose less, than at EngGPT2's width.
)";

constexpr char kOutliersNote[] =
    R"(4 channels of every norm over hidden times 16, the matching columns of the matrices that read it divided by 16: in exact arithmetic nothing
changes. Several draws of channels, taken together. With 128 channels a block of 128 has all four outliers, a block of 32 one on average.
)";

constexpr char kLayersNote[] =
    R"(One expert (hidden 2880, width 1080) and one projection (2880 inputs, 4096 outputs), gaussian weights and inputs; relative RMS error of the
output against double precision. Bytes a weight are the expert's.
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
  std::string table =
      "\n| | bytes a weight | assistant: max | mean | KL | first | everywhere: max | mean | KL | "
      "first | experts given: max | mean | KL | first |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n";
  for (const ModelRow& row : rows) {
    absl::StrAppendFormat(&table, "| %s | %.3f | %s | %s | %s |\n", row.name, row.bytes_per_weight,
                          LossCells(row.loss.taught), LossCells(row.loss.everywhere),
                          LossCells(row.loss.given));
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

// A figure in bold is past its limit.
std::string Judged(double figure, double most) {
  return figure <= most ? absl::StrFormat("%.3g", figure) : absl::StrFormat("**%.3g**", figure);
}

class Targets {
 public:
  Targets(const std::vector<ModelRow>& plain, const std::vector<ModelRow>& outliers,
          const std::vector<LayerRow>& layers)
      : plain_(plain), outliers_(outliers), layers_(layers) {}

  std::string Tables() {
    std::string table =
        "\n| KL on bottega-tiny | at most | assistant | everywhere | experts given |\n"
        "|---|---|---|---|---|\n";
    table += Absolute(kEngineInt8, 0.002) + Absolute(kEngineInt4, 0.02);
    table += Against(kEngineInt8, kQ8, 1.7, 2.5) + Against(kInt8, kQ8, 1.7, 2.5);
    for (const char* finer : kFinerInt8) table += Against(finer, kQ8, 1.7, 2.5);
    table += Against(kEngineInt4, kQ4, 1, 1) + Against(kInt4, kQ4, 1, 1);
    table +=
        "\n| squared error of random layers | at most | expert | projection |\n|---|---|---|---|\n";
    table += Squared(kInt8, kQ8, 1.7, 2.5);
    for (const char* finer : kFinerInt8) table += Squared(finer, kQ8, 1.7, 2.5);
    return table + Squared(kInt4, kQ4, 1, 1);
  }

 private:
  static constexpr const char* kFinerInt8[] = {kInt8Inputs40, kInt8Both40};

  std::string Absolute(const char* name, double most) const {
    const ModelLoss& loss = Named(plain_, name).loss;
    return absl::StrFormat("| %s | %g | %s | %s | %s |\n", name, most,
                           Judged(loss.taught.mean_divergence(), most),
                           Judged(loss.everywhere.mean_divergence(), most),
                           Judged(loss.given.mean_divergence(), most));
  }

  std::string Against(const char* ours, const char* theirs, double most,
                      double most_with_outliers) const {
    return Ratios(ours, theirs, "", plain_, most) +
           Ratios(ours, theirs, ", outliers", outliers_, most_with_outliers);
  }

  static std::string Ratios(const char* ours, const char* theirs, const char* with,
                            const std::vector<ModelRow>& rows, double most) {
    const ModelLoss& a = Named(rows, ours).loss;
    const ModelLoss& b = Named(rows, theirs).loss;
    const auto ratio = [most](const Loss& over, const Loss& under) {
      return Judged(over.mean_divergence() / under.mean_divergence(), most);
    };
    return absl::StrFormat("| %s / %s%s | %g | %s | %s | %s |\n", ours, theirs, with, most,
                           ratio(a.taught, b.taught), ratio(a.everywhere, b.everywhere),
                           ratio(a.given, b.given));
  }

  std::string Squared(const char* ours, const char* theirs, double most,
                      double most_with_outliers) const {
    const LayerRow& a = Named(layers_, ours);
    const LayerRow& b = Named(layers_, theirs);
    const auto line = [&](const char* with, const LayerErrors& over, const LayerErrors& under,
                          double limit) {
      return absl::StrFormat("| %s / %s%s | %g | %s | %s |\n", ours, theirs, with, limit,
                             Judged(std::pow(over.expert / under.expert, 2), limit),
                             Judged(std::pow(over.projection / under.projection, 2), limit));
    };
    return line("", a.plain, b.plain, most) +
           line(", outliers", a.outliers, b.outliers, most_with_outliers);
  }

  const std::vector<ModelRow>& plain_;
  const std::vector<ModelRow>& outliers_;
  const std::vector<LayerRow>& layers_;
};

}  // namespace

absl::StatusOr<std::string> AccuracyReport() {
  if (!HasLogitsGolden("bottega-tiny")) {
    return absl::NotFoundError("no tests/golden here: run in the repository's root");
  }
  const std::vector<LayerRow> layers = MeasureLayers();
  ASSIGN_OR_RETURN(const std::vector<ModelRow> plain, MeasureModel());
  ASSIGN_OR_RETURN(const std::vector<ModelRow> outliers, MeasureModelWithOutliers(kDraws));
  return absl::StrCat(kIntroduction, "\n## Targets\n\n", kTargetsNote,
                      Targets(plain, outliers, layers).Tables(), "\n## bottega-tiny\n\n",
                      kModelNote, ModelTable(plain), "\n## bottega-tiny with outliers\n\n",
                      kOutliersNote, ModelTable(outliers),
                      "\n## Random layers of EngGPT2's width\n\n", kLayersNote, LayerTable(layers));
}

}  // namespace bottega
