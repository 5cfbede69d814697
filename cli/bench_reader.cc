#include "cli/bench_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checked_json.h"
#include "core/model/model_file.h"

namespace bottega {
namespace {

using nlohmann::json;

// The value at a path of keys; null where there is none.
const json& At(const json& from, std::initializer_list<const char*> keys) {
  static const json none;
  const json* at = &from;
  for (const char* key : keys) {
    const auto found = at->is_object() ? at->find(key) : at->end();
    if (!at->is_object() || found == at->end()) return none;
    at = &*found;
  }
  return *at;
}

// 0 for what is no number.
double Number(const json& value) { return value.is_number() ? value.get<double>() : 0; }

// The share of the measured work that is nearest to the one foretold: decode of so many sequences
// at the least context, the prompt nearest in length.
class Nearest {
 public:
  explicit Nearest(double* share) : share_(share) {}
  void Offer(double distance, double share) {
    if (share <= 0 || distance >= distance_) return;
    distance_ = distance;
    *share_ = share;
  }

 private:
  double* share_;
  double distance_ = std::numeric_limits<double>::infinity();
};

void ReadShares(const json& works, FloorShares* shares) {
  Nearest prefill(&shares->prefill);
  std::vector<Nearest> decode;
  for (double& share : shares->decode) decode.emplace_back(&share);
  for (const json& work : works) {
    const double share = Number(At(work, {"floor_share"}));
    if (At(work, {"kind"}) == "prefill") {
      prefill.Offer(std::abs(Number(At(work, {"tokens"})) - kPlannedPrompt), share);
    }
    for (size_t i = 0; i < kPlannedBatches.size(); ++i) {
      if (At(work, {"kind"}) == "decode" && At(work, {"sequences"}) == kPlannedBatches[i]) {
        decode[i].Offer(Number(At(work, {"context"})), share);
      }
    }
  }
}

}  // namespace

absl::StatusOr<BenchFigures> ParseBenchFigures(std::string_view text, const std::string& name) {
  const auto wrong = [&name](std::string_view what) {
    return absl::InvalidArgumentError(
        fmt::format("--bench {}: {}; expected the file of `bottega bench --json`", name, what));
  };
  const absl::StatusOr<json> root = ParseCheckedJson(text, name, limits::kManifestBytesMax);
  if (!root.ok()) return wrong(std::string(root.status().message()));
  BenchFigures figures;
  figures.rates = {.read_bytes_per_s = Number(At(*root, {"rates", "read_bytes_per_s"})),
                   .f32_ops_per_s = Number(At(*root, {"rates", "f32_ops_per_s"})),
                   .int8_ops_per_s = Number(At(*root, {"rates", "int8_ops_per_s"}))};
  if (figures.rates.read_bytes_per_s <= 0 || figures.rates.f32_ops_per_s <= 0) {
    return wrong("\"rates\" has no bandwidth and f32 rate");
  }
  // A rate of 0 would make every int8 operation free, and the plan far too good.
  if (figures.rates.int8_ops_per_s <= 0) {
    return wrong("\"rates\" has no int8 rate; measure again");
  }
  const json& weights = At(*root, {"model", "weights"});
  const auto format = ParseWeightFormat(weights.is_string() ? weights.get<std::string>() : "");
  if (!format.ok()) return wrong("\"model\" has no \"weights\"");
  if (!At(*root, {"works"}).is_array()) return wrong("\"works\" is no list");
  figures.weights = *format;
  figures.shares = TypicalShares(*format);
  figures.shares.source = "as " + name + " has them";
  ReadShares(At(*root, {"works"}), &figures.shares);
  return figures;
}

absl::StatusOr<BenchFigures> ReadBenchFigures(const std::string& path) {
  const std::filesystem::path file = std::filesystem::absolute(path);
  const auto text =
      ReadModelFile(file.parent_path(), file.filename().string(), limits::kManifestBytesMax);
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("--bench {}: {}", path, std::string(text.status().message())));
  }
  return ParseBenchFigures(*text, path);
}

}  // namespace bottega
