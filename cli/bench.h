#pragma once

namespace bottega {

// `bottega bench DIR`: how fast the engine of `bottega serve` is here, each number beside what the
// machine allows.
int RunBench(int argc, const char* const* argv);

}  // namespace bottega
