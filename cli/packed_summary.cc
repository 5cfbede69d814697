#include "cli/packed_summary.h"

#include <cstdint>
#include <cstdio>

#include "core/base/status.h"
#include "core/model/packed_model.h"

namespace bottega {

absl::Status PrintPackedSummary(const std::string& dir) {
  ASSIGN_OR_RETURN(auto model, PackedModel::Open(dir));
  std::printf("%s\n  weights  %s\n  digest   %s\n  bytes    %llu\n", dir.c_str(),
              std::string(Name(model->weights())).c_str(), model->digest().c_str(),
              static_cast<unsigned long long>(
                  model->AttentionBytes() +
                  model->ExpertBytes() * static_cast<uint64_t>(model->config().num_experts) *
                      static_cast<uint64_t>(model->config().num_moe_layers())));
  return absl::OkStatus();
}

}  // namespace bottega
