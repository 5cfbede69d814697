#pragma once

namespace bottega {

// The program bottega-router: options, process, server. The exit code.
int RunRouter(int argc, const char* const* argv);

}  // namespace bottega
