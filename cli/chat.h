#pragma once

namespace bottega {

// `bottega chat [PROMPT...]`: talks with a running server. One answer for a prompt given or piped
// in, else a conversation at the terminal. Exit code 0, 1 failure, 2 usage, 130 stopped by Ctrl-C.
int RunChat(int argc, const char* const* argv);

}  // namespace bottega
