#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace bottega {

class ThreadPool;
struct Primitives;  // core/kernels/cpu/primitives.h; operators only

// Which instructions compute. A choice of speed only: all three give the same bytes.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512 };

// The best that this machine has (and whose registers the kernel saves).
Isa BestIsa();
bool HasIsa(Isa isa);
std::string_view Name(Isa isa);  // "scalar", "avx2", "avx512"

// One of the names above; refused with a reason if unknown or if this machine lacks it.
absl::StatusOr<Isa> ParseIsa(std::string_view name);

// What every operator takes first: which code and which threads. Small, copied freely; the pool
// outlives it.
struct Cpu {
  Isa isa;
  ThreadPool* pool;
  const Primitives* primitives;
};
Cpu MakeCpu(Isa isa, ThreadPool* pool);

}  // namespace bottega
