#pragma once

#include <cstdint>

#include "core/base/loop.h"
#include "expert-worker/engine.h"

namespace bottega {

// What a quarantined worker does before it may serve again: every expert it holds is read anew,
// which checks its bytes, and passes its self-test in full. Goes on until all pass; rows are served
// between two experts.
class Retest {
 public:
  explicit Retest(ExpertEngine& engine) : engine_(engine), wake_(engine.context().loop) {}

  // One more round, unless one that has not begun is asked for already.
  void Ask();
  uint64_t passed() const { return passed_; }  // rounds

  // For as long as the node lives.
  Task<void> Run();

 private:
  Task<bool> PassesAll();

  ExpertEngine& engine_;
  Slot wake_;
  bool asked_ = false;
  uint64_t passed_ = 0;
};

}  // namespace bottega
