#include "expert-worker/packed_experts.h"

#include "core/base/check.h"
#include "core/base/limits.h"
#include "core/base/status.h"

namespace bottega {

namespace {

ExpertBlockShape ShapeOf(const PackedModel& model, DType row_type) {
  return {.hidden = model.config().hidden_size,
          .width = model.config().expert_width,
          .row_type = row_type,
          .weights = model.weights()};
}

}  // namespace

PackedExperts::PackedExperts(std::shared_ptr<const PackedModel> model, const Cpu& cpu,
                             DType row_type, FaultPoints* faults)
    : model_(std::move(model)),
      experts_(static_cast<size_t>(model_->config().num_experts)),
      block_(cpu, ShapeOf(*model_, row_type), limits::kItemRowsMax),
      self_test_(cpu, ShapeOf(*model_, row_type), faults),
      weights_(static_cast<size_t>(model_->config().num_layers) * experts_) {
  groups_.reserve(limits::kItemRowsMax);
}

absl::Status PackedExperts::Load(LayerId layer, ExpertId expert) {
  ASSIGN_OR_RETURN(ExpertWeights weights, model_->MapExpert(layer, expert));
  RETURN_IF_ERROR(self_test_.Run(block_, weights));
  At(layer, expert) = std::make_unique<ExpertWeights>(std::move(weights));
  return absl::OkStatus();
}

absl::Status PackedExperts::Retest(LayerId layer, ExpertId expert) {
  self_test_.Doubt();
  return Load(layer, expert);
}

void PackedExperts::Unload(LayerId layer, ExpertId expert) { At(layer, expert).reset(); }

void PackedExperts::Run(LayerId layer, absl::Span<const ExpertRows> rows) {
  groups_.clear();
  for (const ExpertRows& one : rows) {
    const ExpertWeights* weights = At(layer, one.expert).get();
    CHECK(weights != nullptr);
    groups_.push_back({weights->mlp, one.in, one.out});
  }
  block_.Run(groups_);
}

ExpertCompute::Times PackedExperts::LastTimes() const {
  const ExpertBlockTimes& times = block_.last_times();
  return {.gather = times.gather, .gate_up = times.gate_up, .down = times.down};
}

}  // namespace bottega
