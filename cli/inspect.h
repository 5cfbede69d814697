#pragma once

namespace bottega {

// `bottega inspect DIR [--verify]`: what a Hugging Face or packed directory holds.
int RunInspect(int argc, const char* const* argv);

}  // namespace bottega
