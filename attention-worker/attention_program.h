#pragma once

namespace bottega {

// The program `bottega-attention`: options, process, server, until a signal. Returns the exit code.
int RunAttentionProgram(int argc, const char* const* argv);

}  // namespace bottega
