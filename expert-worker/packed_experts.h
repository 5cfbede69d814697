#pragma once

#include <memory>
#include <vector>

#include "core/kernels/cpu/cpu.h"
#include "core/model/expert_block.h"
#include "core/model/packed_model.h"
#include "expert-worker/expert_compute.h"
#include "expert-worker/self_test.h"

namespace bottega {

// The experts of a packed model: each is mapped when it is loaded, its checksum read once, tested
// with a row, and shared through the page cache with every other worker on the machine.
class PackedExperts final : public ExpertCompute {
 public:
  // `faults` (may be null): see self_test.h.
  PackedExperts(std::shared_ptr<const PackedModel> model, const Cpu& cpu, DType row_type,
                FaultPoints* faults = nullptr);

  absl::Status Load(LayerId layer, ExpertId expert) override;
  absl::Status Retest(LayerId layer, ExpertId expert) override;
  void Unload(LayerId layer, ExpertId expert) override;
  void Run(LayerId layer, absl::Span<const ExpertRows> rows) override;
  Times LastTimes() const override;

 private:
  std::unique_ptr<ExpertWeights>& At(LayerId layer, ExpertId expert) {
    return weights_[size_t{layer.value} * experts_ + expert.value];
  }

  std::shared_ptr<const PackedModel> model_;
  const size_t experts_;  // per layer
  ExpertBlock block_;
  ExpertSelfTest self_test_;
  std::vector<std::unique_ptr<ExpertWeights>> weights_;  // [layers * experts]; null: not loaded
  std::vector<ExpertGroup> groups_;
};

}  // namespace bottega
