#include "core/kernels/cpu/cpu.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "core/base/check.h"
#include "core/base/reason.h"
#include "core/kernels/cpu/primitives.h"
#include "core/kernels/cpu/threads.h"

namespace bottega {

bool HasIsa(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:  // with VNNI: a machine of the years before it computes with AVX2
      return HasIsa(Isa::kAvx2) && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  }
  return false;
}

Isa BestIsa() {
  if (HasIsa(Isa::kAvx512)) return Isa::kAvx512;
  return HasIsa(Isa::kAvx2) ? Isa::kAvx2 : Isa::kScalar;
}

std::string_view Name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "?";
}

absl::StatusOr<Isa> ParseIsa(std::string_view name) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (Name(isa) != name) continue;
    if (HasIsa(isa)) return isa;
    return MakeError(Reason::kNotSupported,
                     absl::StrCat("this machine has no ", std::string(name),
                                  " instructions; best is ", std::string(Name(BestIsa()))));
  }
  return MakeError(Reason::kInvalidValue,
                   absl::StrCat("unknown instruction set '", std::string(name),
                                "'; one of scalar, avx2, avx512"));
}

Cpu MakeCpu(Isa isa, ThreadPool* pool) {
  CHECK(HasIsa(isa));
  CHECK(pool != nullptr);
  switch (isa) {
    case Isa::kAvx512:
      return {isa, pool, &kAvx512Primitives};
    case Isa::kAvx2:
      return {isa, pool, &kAvx2Primitives};
    case Isa::kScalar:
      break;
  }
  return {isa, pool, &kScalarPrimitives};
}

}  // namespace bottega
