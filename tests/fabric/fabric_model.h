#pragma once

#include <filesystem>
#include <memory>

#include "core/model/packed_model.h"
#include "core/tensor/weight_format.h"
#include "gateway/text.h"

namespace bottega::fabric {

// A small random model with the bundled tokenizer and template, written and packed once a process
// and weight format.
class FabricModel {
 public:
  ~FabricModel();
  static const FabricModel& Get(WeightFormat weights = WeightFormat::kF32);

  const std::filesystem::path& checkpoint() const { return checkpoint_; }
  const std::shared_ptr<const PackedModel>& packed() const { return packed_; }
  const ModelText& text() const { return text_; }

 private:
  explicit FabricModel(WeightFormat weights);

  std::filesystem::path dir_, checkpoint_;
  std::shared_ptr<const PackedModel> packed_;
  ModelText text_;
};

}  // namespace bottega::fabric
