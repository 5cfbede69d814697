#include "core/model/synthesiser.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/model/config.h"
#include "core/model/partial_directory.h"
#include "core/model/random_region.h"
#include "core/model/refusal.h"
#include "core/model/region_threads.h"
#include "core/model/sha256.h"
#include "core/model/synthetic_text.h"
#include "core/model/work_progress.h"

namespace bottega {
namespace {

uint64_t AllBytes(const std::vector<Region>& plan) {
  uint64_t total = 0;
  for (const Region& region : plan) total += region.bytes;
  return total;
}

// The manifest, its sums yet to come.
absl::StatusOr<Manifest> Describe(const std::string& config_json, std::vector<TextFile>& files,
                                  const SynthesisOptions& options) {
  ASSIGN_OR_RETURN(const ModelConfig shape, ParseModelConfig(config_json, ""));
  // The embedding is large, so that routing spreads; as a head it would only repeat its input.
  if (shape.tied_head) {
    return RefuseModel("config.json: tie_word_embeddings is true; random weights need false");
  }
  RETURN_IF_ERROR(CheckWeightFormat(shape, options.weights));
  ASSIGN_OR_RETURN(files, SyntheticText(shape));
  std::string generation;
  for (const TextFile& file : files) {
    if (file.name == "generation_config.json") generation = file.content;
  }
  files.push_back({"config.json", config_json});
  std::ranges::sort(files, {}, &TextFile::name);
  Manifest manifest;
  manifest.weights = options.weights;
  ASSIGN_OR_RETURN(manifest.config, ParseModelConfig(config_json, generation));
  manifest.rope = MakeRopeTable(manifest.config);
  for (const TextFile& file : files) {
    manifest.files.push_back({file.name, file.content.size(), Sha256Hex(file.content)});
  }
  manifest.sources = {{"random weights, seed " + std::to_string(options.seed), 0, ""}};
  return manifest;
}

absl::Status Fill(PartialDirectory& partial, const std::vector<TextFile>& files, Manifest& manifest,
                  const SynthesisOptions& options) {
  const std::vector<Region> plan = PlanRegions(manifest.config, options.weights);
  RETURN_IF_ERROR(partial.Make(plan, /*keep=*/false));
  for (const TextFile& file : files) RETURN_IF_ERROR(partial.Write(file.name, file.content));
  WorkProgress progress(AllBytes(plan), options.progress);
  manifest.sums.resize(plan.size());
  RETURN_IF_ERROR(ForEachRegion(options.threads, plan.size(), [&](size_t i) -> absl::Status {
    ASSIGN_OR_RETURN(manifest.sums[i], WriteRandomRegion(plan[i], options.weights, options.seed,
                                                         partial.FileOf(plan[i])));
    progress.Advance(plan[i].bytes);
    return absl::OkStatus();
  }));
  RETURN_IF_ERROR(partial.WriteManifest(manifest));
  return partial.Publish();
}

}  // namespace

absl::Status SynthesiseModel(const std::string& config_json, const std::filesystem::path& out,
                             const SynthesisOptions& options) {
  std::vector<TextFile> files;
  ASSIGN_OR_RETURN(Manifest manifest, Describe(config_json, files, options));
  ASSIGN_OR_RETURN(PartialDirectory partial, PartialDirectory::Claim(out, nullptr));
  absl::Status status = Fill(partial, files, manifest, options);
  if (!status.ok()) partial.Discard();
  return status;
}

}  // namespace bottega
