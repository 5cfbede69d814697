#pragma once

#include <filesystem>
#include <memory>

#include "core/kernels/cpu/cpu.h"
#include "core/kernels/cpu/threads.h"
#include "core/model/packed_model.h"
#include "gateway/text.h"

namespace bottega::fabric {

// A small random model with the bundled tokenizer and template, written and packed once a process.
class FabricModel {
 public:
  static const FabricModel& Get();

  const std::filesystem::path& checkpoint() const { return checkpoint_; }
  const std::shared_ptr<const PackedModel>& packed() const { return packed_; }
  const ModelText& text() const { return text_; }
  const Cpu& cpu() const { return cpu_; }

 private:
  FabricModel();
  ~FabricModel();

  std::filesystem::path dir_, checkpoint_;
  std::shared_ptr<const PackedModel> packed_;
  ModelText text_;
  mutable ThreadPool pool_{1};
  Cpu cpu_;
};

}  // namespace bottega::fabric
