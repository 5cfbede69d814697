#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "core/base/strong_id.h"
#include "core/base/time.h"

namespace bottega {

// Rows that go through one expert: [hidden] of R each, anywhere in memory; out[i] is for in[i].
struct ExpertRows {
  ExpertId expert;
  absl::Span<const std::byte* const> in;
  absl::Span<std::byte* const> out;
};

// Turns rows into rows. The seam between the worker and the maths: the model's experts
// (packed_experts.h), or the fabric's pure functions.
class ExpertCompute {
 public:
  virtual ~ExpertCompute() = default;

  // Makes an expert ready to run: maps it and checks its bytes. Blocks for milliseconds.
  virtual absl::Status Load(LayerId layer, ExpertId expert) = 0;
  // The same with a loaded one whose answers are in doubt: it is read anew and tested harder. Goes
  // on serving from the old bytes if that fails.
  virtual absl::Status Retest(LayerId layer, ExpertId expert) { return Load(layer, expert); }
  virtual void Unload(LayerId layer, ExpertId expert) = 0;
  // Experts ascending, all loaded. A row's result depends on its bytes and its expert only.
  virtual void Run(LayerId layer, absl::Span<const ExpertRows> rows) = 0;
  // What the last Run took by stage, for metrics; zeros where nothing is measured.
  struct Times {
    Duration gather{}, gate_up{}, down{};
  };
  virtual Times LastTimes() const { return {}; }
  // How long Run took in the world of a virtual clock; the worker waits that long.
  virtual Duration VirtualTime(size_t /*rows*/) const { return Duration::zero(); }
};

}  // namespace bottega
