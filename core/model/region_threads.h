#pragma once

#include <cstddef>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace bottega {

// Calls each(i) once for i in [0, count), begun in that order, from `threads` threads at a time; 0:
// as many as the machine has, at most 8. After an error no other begins, and it is what is
// returned.
absl::Status ForEachRegion(int threads, size_t count, absl::FunctionRef<absl::Status(size_t)> each);

}  // namespace bottega
