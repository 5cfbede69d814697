#pragma once

#include <cstdint>
#include <string>

namespace bottega {

// The processor as /proc/cpuinfo names it; "unknown" where it does not.
std::string ProcessorName();

// Proportional set size of this process: its memory, pages it shares counted by their share. 0 if
// the kernel does not tell.
uint64_t ProportionalSetBytes();

}  // namespace bottega
