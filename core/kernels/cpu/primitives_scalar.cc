#include "core/kernels/cpu/dots_scalar.h"
#include "core/kernels/cpu/lanes_scalar.h"
#include "core/kernels/cpu/primitives_of.h"

namespace bottega {

constinit const Primitives kScalarPrimitives = PrimitivesOf<ScalarLanes>();

}  // namespace bottega
