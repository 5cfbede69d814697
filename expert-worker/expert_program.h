#pragma once

namespace bottega {

// The program `bottega-expert`: options, process, server, until a signal. Returns the exit code.
int RunExpertProgram(int argc, const char* const* argv);

}  // namespace bottega
