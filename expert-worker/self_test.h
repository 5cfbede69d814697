#pragma once

#include "absl/status/status.h"
#include "core/base/fault_point.h"
#include "core/kernels/cpu/cpu.h"
#include "core/model/expert_block.h"
#include "core/model/packed_model.h"

namespace bottega {

// Computes one fixed row with an expert that was just loaded, before anybody is told of it. The
// numerics contract says what must come out: finite values and, whatever the instruction set, the
// bytes of the scalar kernels. Every expert is tested for the first (its weights), one expert for
// the second (this machine's arithmetic; scalar kernels are slow), and each that is in doubt.
class ExpertSelfTest {
 public:
  // `faults` may be null. "ew.compute" corrupts what comes out, here as in replies.
  ExpertSelfTest(const Cpu& cpu, const ExpertBlockShape& shape, FaultPoints* faults);

  // `block` is the one that will serve. Internal says what is wrong.
  absl::Status Run(ExpertBlock& block, const ExpertWeights& weights);
  // The next expert is compared with the scalar kernels again.
  void Doubt() { compared_ = false; }

 private:
  std::vector<std::byte> Compute(ExpertBlock& block, const ExpertWeights& weights) const;

  const Cpu cpu_;
  const ExpertBlockShape shape_;
  FaultPoints* const faults_;
  std::vector<std::byte> in_;  // [hidden] of R
  bool compared_ = false;
};

}  // namespace bottega
