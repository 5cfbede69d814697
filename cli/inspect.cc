#include "cli/inspect.h"

#include <cstdio>
#include <string>

#include "cli/model_report.h"
#include "core/base/limits.h"
#include "core/base/status.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/pack_source.h"
#include "core/model/packed_model.h"
#include "core/model/packer.h"
#include "core/service/options.h"
#include "core/service/process.h"
#include "core/service/progress_bar.h"

namespace bottega {
namespace {

absl::Status AddTokens(const std::string& tokenizer_json, ModelReport& report) {
  ASSIGN_OR_RETURN(report.added_tokens, ReadAddedTokens(tokenizer_json));
  return absl::OkStatus();
}

absl::Status DescribePacked(const std::string& dir, bool verify, ModelReport& report) {
  ASSIGN_OR_RETURN(auto model, PackedModel::Open(dir));
  report.config = model->config();
  report.directory =
      "packed as " + std::string(Name(model->weights())) + ", digest " + model->digest();
  for (const FileSum& file : model->manifest().files) report.files.push_back(file.name);
  auto tokenizer = model->ReadCopiedFile("tokenizer.json");
  if (tokenizer.ok()) RETURN_IF_ERROR(AddTokens(*tokenizer, report));
  if (!verify) return absl::OkStatus();
  ProgressBar bar("verifying");
  return model->Verify([&bar](uint64_t done, uint64_t total) { bar.Update(done, total); });
}

absl::Status DescribeCheckpoint(const std::string& dir, bool verify, ModelReport& report) {
  if (verify) {
    return absl::InvalidArgumentError("--verify needs a packed directory; " + dir +
                                      " has no sums to verify");
  }
  ASSIGN_OR_RETURN(auto checkpoint, Checkpoint::Open(dir));
  report.config = checkpoint->config();
  report.directory = "Hugging Face directory, " + std::to_string(checkpoint->files().size()) +
                     (checkpoint->files().size() == 1 ? " file" : " files") + " of weights";
  if (!report.config.dtype.empty()) report.directory += " in " + report.config.dtype;
  report.files = CopiedFiles(dir);
  if (!HasModelFile(dir, "tokenizer.json")) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string tokenizer,
                   ReadModelFile(dir, "tokenizer.json", limits::kTokenizerBytesMax));
  return AddTokens(tokenizer, report);
}

absl::Status Inspect(const std::string& dir, bool verify) {
  ModelReport report;
  report.memory = ReadMemoryLimit();
  RETURN_IF_ERROR(IsPacked(dir) ? DescribePacked(dir, verify, report)
                                : DescribeCheckpoint(dir, verify, report));
  std::fputs(report.Text().c_str(), stdout);
  if (verify) std::puts("verified     every byte has the SHA-256 that the manifest names");
  return absl::OkStatus();
}

}  // namespace

int RunInspect(int argc, const char* const* argv) {
  bool verify = false;
  OptionTable table("bottega inspect",
                    "Tells what a model directory (Hugging Face or packed) holds, what is missing "
                    "for serving it, and whether it fits this machine.");
  table.Add("verify", &verify, "read all of a packed directory and compare its SHA-256 sums");
  table.Positional("DIR", 1, 1);
  auto outcome = table.Parse(argc, argv);
  if (!outcome.ok()) return ExitCode(outcome.status());
  if (!outcome->print_and_exit.empty()) {
    std::fputs(outcome->print_and_exit.c_str(), stdout);
    return 0;
  }
  return ExitCode(Inspect(outcome->positional[0], verify));
}

}  // namespace bottega
