#pragma once

#include "core/kernels/cpu/cpu.h"
#include "core/model/step_cost.h"

namespace bottega {

// What this machine does at best with the threads and instructions of `cpu`, measured now: the
// floors of every other number. Takes about a second and half a GiB, which it gives back. Times on
// a shared machine vary, so measure it next to what it is compared with.
MachineRates MeasureMachineRates(const Cpu& cpu);

// Its int8_ops_per_s: the dot product of bytes (AVX-512 VNNI), of bytes widened to 16 bits (AVX2),
// or one product of integers after the other (scalar).
double MeasureInt8Rate(const Cpu& cpu);

}  // namespace bottega
