#pragma once

#include <cstdint>

namespace bottega {

// Element types of stored bytes: weights, exchanged rows, the KV cache. Values are part of file and
// frame formats: never renumber. Arithmetic is always f32.
//
// Apart from dtype.h because code compiled for one instruction set (core/kernels/cpu) may include
// nothing that brings in a static initialiser or the standard library's inline functions.
enum class DType : uint8_t { kF32 = 0, kBF16 = 1 };

}  // namespace bottega
