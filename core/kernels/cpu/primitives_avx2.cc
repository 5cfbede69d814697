#include "core/kernels/cpu/dots_avx2.h"
#include "core/kernels/cpu/lanes_avx2.h"
#include "core/kernels/cpu/primitives_of.h"

namespace bottega {

constinit const Primitives kAvx2Primitives = PrimitivesOf<Avx2Lanes>();

}  // namespace bottega
