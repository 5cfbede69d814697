#include "core/kernels/cpu/dots_avx512.h"
#include "core/kernels/cpu/lanes_avx512.h"
#include "core/kernels/cpu/primitives_of.h"

namespace bottega {

constinit const Primitives kAvx512Primitives = PrimitivesOf<Avx512Lanes>();

}  // namespace bottega
