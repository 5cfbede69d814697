#pragma once

namespace bottega {

// `bottega serve DIR`: the four servers in one process, over one loop. argv[0] is the sub-command.
int RunServe(int argc, const char* const* argv);

}  // namespace bottega
