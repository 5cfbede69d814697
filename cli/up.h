#pragma once

namespace bottega {

// `bottega up DIR`: a cluster on this machine: router, gateway, attention and expert workers as
// processes, supervised. argv[0] is the sub-command.
int RunUp(int argc, const char* const* argv);

}  // namespace bottega
