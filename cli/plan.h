#pragma once

namespace bottega {

// `bottega plan DIR` or `--shape NAME`: what fits a machine, and how fast it will be.
int RunPlan(int argc, const char* const* argv);

}  // namespace bottega
