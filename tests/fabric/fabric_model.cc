#include "tests/fabric/fabric_model.h"

#include <unistd.h>

#include <map>
#include <string>

#include "core/base/check.h"
#include "core/model/packer.h"
#include "gateway/model_directory.h"
#include "tests/core/model/checkpoint_writer.h"

namespace bottega::fabric {
namespace {

constexpr char kTiny[] = "tests/fixtures/bottega-tiny";  // tests run in the repository's root

}  // namespace

const FabricModel& FabricModel::Get(WeightFormat weights) {
  static std::map<WeightFormat, std::unique_ptr<const FabricModel>> models;
  std::unique_ptr<const FabricModel>& model = models[weights];
  if (model == nullptr) model.reset(new FabricModel(weights));
  return *model;
}

FabricModel::FabricModel(WeightFormat weights) {
  namespace fs = std::filesystem;
  std::string pattern = (fs::temp_directory_path() / "bottega-fabric-XXXXXX").string();
  CHECK(mkdtemp(pattern.data()) != nullptr);
  dir_ = pattern;
  checkpoint_ = dir_ / "fabric-model";
  fs::create_directory(checkpoint_);
  CheckpointToWrite checkpoint;
  checkpoint.config["vocab_size"] = 1024;
  checkpoint.config["eos_token_id"] = 1013;
  checkpoint.config["num_experts"] = 8;
  checkpoint.config["max_position_embeddings"] = 512;
  WriteCheckpoint(checkpoint_, checkpoint);
  for (const char* file : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json"}) {
    fs::copy_file(fs::path(kTiny) / file, checkpoint_ / file, fs::copy_options::overwrite_existing);
  }
  const absl::Status done =
      PackModel(checkpoint_, dir_ / "packed", {.weights = weights, .threads = 1});
  if (!done.ok()) std::fprintf(stderr, "%s\n", done.ToString().c_str());
  CHECK(done.ok());
  auto opened = PackedModel::Open(dir_ / "packed");
  CHECK(opened.ok());
  packed_ = *std::move(opened);
  auto text = LoadModelText(*packed_, "fabric-model", checkpoint_.string());
  if (!text.ok()) std::fprintf(stderr, "%s\n", text.status().ToString().c_str());
  CHECK(text.ok());
  text_ = *std::move(text);
}

FabricModel::~FabricModel() {
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

}  // namespace bottega::fabric
