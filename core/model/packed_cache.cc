#include <cstdlib>

#include "core/base/status.h"
#include "core/model/checkpoint_reader.h"
#include "core/model/pack_source.h"
#include "core/model/packed_model.h"
#include "core/model/packer.h"
#include "core/model/refusal.h"

namespace bottega {

namespace fs = std::filesystem;

fs::path DefaultModelCache() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg == '/') {
    return fs::path(xdg) / "bottega" / "models";
  }
  const char* home = std::getenv("HOME");
  return fs::path(home && *home ? home : "/tmp") / ".cache" / "bottega" / "models";
}

absl::StatusOr<fs::path> PackedFor(const fs::path& dir, const CacheOptions& options) {
  if (IsPacked(dir)) {
    ASSIGN_OR_RETURN(auto model, PackedModel::Open(dir));
    if (options.weights && *options.weights != model->weights()) {
      return RefuseModel(dir.string(), ": is packed as ", Name(model->weights()), ", not as ",
                         Name(*options.weights), "; give the original directory");
    }
    return dir;
  }
  // Judged before anything is looked up or written: a wrong path or model should say so at once.
  RETURN_IF_ERROR(ReadModelConfig(dir).status());
  const WeightFormat weights = options.weights.value_or(WeightFormat::kBF16);
  ASSIGN_OR_RETURN(std::string key, SourceKey(dir, weights));
  fs::path name = fs::absolute(dir).lexically_normal();
  name = name.has_filename() ? name.filename() : name.parent_path().filename();
  const fs::path cache = options.cache.empty() ? DefaultModelCache() : options.cache;
  const fs::path target =
      cache / (name.string() + "-" + std::string(Name(weights)) + "-" + key.substr(0, 16));
  if (IsPacked(target)) return target;
  if (options.note) options.note("packing " + dir.string() + " into " + target.string());
  PackOptions pack;
  pack.weights = weights;
  pack.progress = options.progress;
  pack.faults = options.faults;
  pack.wait = [&options] {
    if (options.note) options.note("another process is packing this model; waiting for it");
  };
  RETURN_IF_ERROR(PackModel(dir, target, pack));
  return target;
}

}  // namespace bottega
