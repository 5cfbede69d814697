#pragma once

#include <cstdint>

#include "core/base/loop.h"
#include "expert-worker/engine.h"

namespace bottega {

// What a quarantined worker does before it may serve again: every expert it holds is read anew,
// which checks its bytes, and computes the same row twice, which must come out finite and the same.
// Goes on until all pass; rows are served between two experts.
class SelfTest {
 public:
  explicit SelfTest(ExpertEngine& engine) : engine_(engine), wake_(engine.context().loop) {}

  // One more test, unless one that has not begun is asked for already.
  void Ask();
  uint64_t passed() const { return passed_; }

  // Spawn it once.
  Task<void> Run();

 private:
  absl::Status TestOne(LayerId layer, ExpertId expert);

  ExpertEngine& engine_;
  Slot wake_;
  bool asked_ = false;
  uint64_t passed_ = 0;
};

}  // namespace bottega
